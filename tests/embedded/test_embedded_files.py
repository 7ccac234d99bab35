"""Configs are plain data, and a download that fails says so soon and leaves nothing."""

import http.server
import socket
import threading
import time

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import file_io
from detectron2.utils.file_io import PathManager

TAGS = [
    "!!python/object/apply:os.mkdir [{victim}]",
    "!!python/object/new:os.mkdir [{victim}]",
    "!!python/name:os.mkdir",
    "!!python/tuple [1, 2]",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("in_base", [False, True])
def test_python_tags_are_refused(tmp_path, tag, in_base):
    victim = tmp_path / "victim"
    bad = tmp_path / "bad.yaml"
    bad.write_text("SEED: 1\nOUTPUT_DIR: " + tag.format(victim=victim) + "\n")
    top = tmp_path / "top.yaml"
    top.write_text("_BASE_: bad.yaml\n")
    path = str(top if in_base else bad)
    cfg = get_cfg()
    for read in (
        lambda: cfg.merge_from_file(path),
        lambda: cfg.merge_from_file(path, allow_unsafe=True),
        lambda: CfgNode.load_yaml_with_base(path, allow_unsafe=True),
    ):
        with pytest.raises(ValueError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{bad}, line 2: ") and "\n" not in message
        assert "plain data" in message
    assert not victim.exists()
    assert cfg.dump() == get_cfg().dump()


def test_a_config_that_is_no_mapping_is_named(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="mapping of keys") as caught:
        get_cfg().merge_from_file(str(path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("version", [1, 3])
def test_other_versions_are_named(tmp_path, version):
    path = tmp_path / "old.yaml"
    path.write_text(f"VERSION: {version}\nSEED: 3\n")
    with pytest.raises(ValueError, match=f"VERSION is {version}"):
        get_cfg().merge_from_file(str(path))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


def check_failure(path, cache, name):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        PathManager.get_local_path(path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "cannot be downloaded" in message and "\n" not in message
    assert f"MODEL.WEIGHTS {name}" in message
    assert [p.name for p in cache.rglob("*") if p.is_file()] == [f"{name}.lock"]
    return message


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_an_unreachable_server(cache):
    url = f"http://127.0.0.1:{free_port()}/zoo/R-50.pkl"
    assert check_failure(url, cache, "R-50.pkl").startswith(f"{url}: ")


def test_nothing_is_written_outside_of_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "a" / "b"
    monkeypatch.setenv("FVCORE_CACHE", str(cache))
    check_failure(f"http://127.0.0.1:{free_port()}/../../c.pkl", cache, "c.pkl")
    assert [p.name for p in tmp_path.rglob("c.pkl*")] == ["c.pkl.lock"]


def test_the_model_zoo_out_of_reach(cache, monkeypatch):
    def urlopen(url, timeout):
        assert timeout <= 30
        raise OSError(f"no way to {url}")

    monkeypatch.setattr(file_io.urllib.request, "urlopen", urlopen)
    message = check_failure("detectron2://ImageNetPretrained/MSRA/R-50.pkl", cache, "R-50.pkl")
    address = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    assert f"no way to {address}" in message


def test_a_server_that_never_answers(cache, monkeypatch):
    monkeypatch.setattr(file_io, "_TIMEOUT", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        check_failure(f"http://127.0.0.1:{listener.getsockname()[1]}/a.pkl", cache, "a.pkl")


def test_a_download_that_ends_early(cache):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request).start()
        message = check_failure(f"http://127.0.0.1:{server.server_port}/b.pkl", cache, "b.pkl")
    assert "4 of 100 bytes" in message
