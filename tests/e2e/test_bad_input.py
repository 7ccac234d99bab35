"""Each mistake ends in one sentence that names what was found, and OUTPUT_DIR stays as it was."""

import importlib
import pickle
import re
import shutil

import pytest
import torch
from detectron2.data import MetadataCatalog

from mask2former import device as devices
from mask2former.config import load_config
from mask2former.data.datasets.cityscapes import register_all_cityscapes
from mask2former.engine import Trainer

OLD_FILES = {
    "config.yaml": b"old config",
    "metrics.json": b'{"iteration": 0, "total_loss": 1.0}\n',
    "model_final.pth": b"old weights",
    "log.txt": b"old log",
}


class Attack:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return exec, (f"open({self.path!r}, 'w').write('attacked')",)


@pytest.fixture
def refused(workplace, capsys):
    """A function that runs with an earlier run's files in OUTPUT_DIR, and returns the sentence."""
    workplace.output.mkdir()
    for name, content in OLD_FILES.items():
        (workplace.output / name).write_bytes(content)

    def run(*words):
        before = contents(workplace.output)
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            workplace.main(*words)
        said = capsys.readouterr()
        assert error.value.code not in (0, None)
        assert "Traceback" not in said.out + said.err
        assert contents(workplace.output) == before
        return only_sentence(said.err)

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only_sentence(stderr):
    lines = [line for line in stderr.splitlines() if ": error: " in line]
    assert len(lines) == 1, stderr
    return lines[0].partition(": error: ")[2]


@pytest.fixture
def own_datasets(workplace, tmp_path):
    """A copy of the dataset that a test may spoil."""
    root = tmp_path / "own"
    shutil.copytree(workplace.datasets, root)
    register_all_cityscapes(str(root))
    return root / "mini_cityscapes"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of a Mask2Former with a ResNet-34, to be taken for those of one with a ResNet-18."""
    path = tmp_path_factory.mktemp("trained") / "resnet34.pth"
    opts = ["MODEL.RESNETS.DEPTH", "34", "MODEL.DEVICE", "cpu"]
    torch.save(
        {"model": Trainer.build_model(load_config("quick_start.yaml", opts)).state_dict()}, path
    )
    return str(path)


def test_no_dataset(refused, tmp_path):
    register_all_cityscapes(str(tmp_path / "nowhere"))
    sentence = refused("DATASETS.TRAIN", "('cityscapes_fine_sem_seg_train',)")
    assert str(tmp_path / "nowhere" / "cityscapes") in sentence
    assert "DETECTRON2_DATASETS" in sentence


def test_images_without_labels(refused, own_datasets):
    for label in own_datasets.glob("gtFine/train/*/*_labelTrainIds.png"):
        label.unlink()
    sentence = refused()
    assert str(own_datasets) in sentence and "prepare_cityscapes.py" in sentence


@pytest.mark.parametrize("words", [(), ("--eval-only",)], ids=["train", "eval"])
def test_images_for_testing_without_labels(refused, own_datasets, words):
    """Said at once, not when the training is over."""
    for label in own_datasets.glob("gtFine/val/*/*_labelTrainIds.png"):
        label.unlink()
    sentence = refused(*words)
    assert "gtFine/val" in sentence and "prepare_cityscapes.py" in sentence


def test_no_evaluator_for_what_is_to_be_tested(refused, own_datasets, monkeypatch):
    metadata = MetadataCatalog.get("mini_cityscapes_fine_sem_seg_val")
    monkeypatch.setitem(vars(metadata), "evaluator_type", "lvis")
    assert "sem_seg_val: no evaluator for evaluator_type 'lvis'" in refused()


def test_label_outside_the_classes(refused, own_datasets):
    for label in own_datasets.glob("gtFine/train/*/*_labelTrainIds.png"):
        shutil.copy(str(label).replace("labelTrainIds", "labelIds"), label)
    sentence = refused()
    assert "_gtFine_labelTrainIds.png" in sentence and "19" in sentence


def test_truncated_image(refused, own_datasets):
    for image in own_datasets.glob("leftImg8bit/train/*/*.png"):
        image.write_bytes(image.read_bytes()[:2000])
    assert "_leftImg8bit.png: not a whole picture" in refused()


def test_truncated_image_found_by_a_worker(refused, own_datasets):
    for image in own_datasets.glob("leftImg8bit/train/*/*.png"):
        image.write_bytes(image.read_bytes()[:2000])
    sentence = refused("DATALOADER.NUM_WORKERS", "1")
    assert "_leftImg8bit.png: not a whole picture" in sentence


def test_number_of_classes_that_contradicts_the_dataset(refused):
    sentence = refused("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "150")
    assert "MODEL.SEM_SEG_HEAD.NUM_CLASSES=150" in sentence and "set it to 19" in sentence


def test_unknown_key(refused, workplace):
    assert "did you mean SOLVER.BASE_LR?" in refused("SOLVER.BASE_LRR", "0.1")
    with open("config.yaml", "a") as file:
        file.write("SOLVERS: {MAX_ITER: 3}\n")
    sentence = refused()
    assert sentence.startswith("config.yaml: unknown config key SOLVERS.MAX_ITER")


def test_yaml_with_python_tags(refused, tmp_path):
    mark = tmp_path / "attacked"
    with open("config.yaml", "a") as file:
        file.write(f"DATASETS: !!python/object/apply:os.mkdir [{mark}]\n")
    sentence = refused()
    assert "config.yaml" in sentence and "python/object/apply:os.mkdir" in sentence
    assert not mark.exists()


@pytest.mark.parametrize("words", [(), ("--eval-only",)], ids=["train", "eval"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_weights_with_code(refused, tmp_path, name, words):
    mark, path = tmp_path / "attacked", tmp_path / name
    data = {"model": {"weight": torch.zeros(1)}, "extra": Attack(mark)}
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps({"model": {}, "extra": Attack(mark)}))
    else:
        torch.save(data, path)
    sentence = refused(*words, "MODEL.WEIGHTS", path)
    assert str(path) in sentence and "could run code" in sentence
    assert not mark.exists()


def test_checkpoint_with_code_is_not_resumed(refused, workplace, tmp_path):
    mark = tmp_path / "attacked"
    torch.save({"model": {}, "trainer": Attack(mark)}, workplace.output / "model_final.pth")
    (workplace.output / "last_checkpoint").write_text("model_final.pth")
    assert "could run code" in refused("--resume")
    assert not mark.exists()


def test_weights_of_another_architecture(refused, trained):
    deeper = ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "3")  # these have 2
    for words in (deeper, ("--eval-only", *deeper)):
        sentence = refused(*words, "MODEL.WEIGHTS", trained)
        assert sentence.startswith(trained)
        assert re.search(r"\d+ unexpected \(backbone\.res", sentence)
        assert re.search(r"\d+ of another shape \(sem_seg_head\.", sentence)
        assert re.search(r"\d+ missing \(sem_seg_head\.", sentence)


def test_truncated_checkpoint(refused, workplace, trained, tmp_path):
    path = tmp_path / "truncated.pth"
    with open(trained, "rb") as file:
        path.write_bytes(file.read(100_000))
    assert f"{path}: truncated" in refused("MODEL.WEIGHTS", path)
    shutil.copy(path, workplace.output / "model_0000001.pth")
    (workplace.output / "last_checkpoint").write_text("model_0000001.pth")
    assert "model_0000001.pth: truncated" in refused("--resume")


def test_missing_weights(refused):
    assert "nowhere.pth: no such weight file" in refused("MODEL.WEIGHTS", "nowhere.pth")
    assert "MODEL.WEIGHTS is empty" in refused("--eval-only")


def test_weights_that_cannot_be_downloaded(refused):
    url = "http://127.0.0.1:9/weights.pth"  # the discard port, where nobody listens
    sentence = refused("MODEL.WEIGHTS", url)
    assert sentence.startswith(url) and "MODEL.WEIGHTS" in sentence


def test_more_processes_than_devices(refused, monkeypatch):
    counts = {"cuda": 2, "cpu": 1}
    for module in (devices, importlib.import_module("mask2former.engine.launch")):
        monkeypatch.setattr(module, "device_count", lambda kind: counts.get(kind, 0))
    sentence = refused("--num-gpus", "4", "MODEL.DEVICE", "cuda", "SOLVER.IMS_PER_BATCH", "4")
    assert sentence.startswith("--num-gpus 4, but this machine has 2 cuda device(s)")


def test_device_that_is_not_there(refused, monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda kind: int(kind == "cpu"))
    assert refused("MODEL.DEVICE", "cuda").startswith("MODEL.DEVICE='cuda', but torch")


def test_mistake_seen_by_the_shell(workplace, own_datasets):
    """The same through real processes: two of them find the broken image, one sentence comes."""
    for image in own_datasets.glob("leftImg8bit/train/*/*.png"):
        image.write_bytes(image.read_bytes()[:2000])
    workplace.datasets = own_datasets.parent
    done = workplace.run("--num-gpus", "2")
    assert done.returncode == 1
    assert "not a whole picture" in only_sentence(done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert not workplace.output.exists()


def test_broken_images_up_to_a_number(workplace, own_datasets, capsys):
    images = sorted(own_datasets.glob("leftImg8bit/train/*/*.png"))
    words = ("DATALOADER.MAX_BAD_SAMPLES", "1", "DATASETS.TEST", "()")
    images[0].write_bytes(images[0].read_bytes()[:2000])
    workplace.main(*words)
    lines = (workplace.output / "log.txt").read_text().splitlines()
    (told,) = [line for line in lines if "not a whole picture" in line]
    assert str(images[0]) in told and "(broken sample 1 of at most 1: " in told
    assert (workplace.output / "model_final.pth").exists()

    images[1].write_bytes(images[1].read_bytes()[:2000])
    with pytest.raises(SystemExit) as error:
        workplace.main(*words, "OUTPUT_DIR", "stopped")
    said = capsys.readouterr()
    assert error.value.code == 1 and "Traceback" not in said.out + said.err
    assert "this is broken sample 2, and DATALOADER.MAX_BAD_SAMPLES=1" in only_sentence(said.err)
