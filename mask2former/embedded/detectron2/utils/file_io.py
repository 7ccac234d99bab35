"""`PathManager`: local paths, http(s):// and detectron2:// under one interface."""

import logging
import os
import posixpath
import shutil
import urllib.request
from typing import IO
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, PathHandler, file_lock, get_cache_dir
from iopath.common.file_io import PathManager as _PathManager
from tqdm import tqdm

__all__ = ["PathHandler", "PathManager"]

# Seconds without an answer after which a server counts as unreachable.
_TIMEOUT = 10

PathManager = _PathManager()


class _DownloadHandler(HTTPURLHandler):
    """Downloads once into the cache directory; gives up soon and says what to do instead."""

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs
    ) -> str:
        self._check_kwargs(kwargs)
        inside = posixpath.normpath("/" + urlparse(path).path).lstrip("/")  # whatever its ".."
        cached = os.path.join(get_cache_dir(cache_dir), inside)
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        with file_lock(cached):  # of several processes one downloads
            if force or not os.path.isfile(cached):
                try:
                    _download(path, cached)
                except OSError as error:
                    name = os.path.basename(cached)
                    reason = getattr(error, "reason", error)
                    raise FileNotFoundError(
                        f"{path}: cannot be downloaded ({reason}); get {name} where there is a "
                        f"network and give its local path instead, e.g. MODEL.WEIGHTS {name}"
                    ) from error
        return cached


def _download(url: str, target: str) -> None:
    logging.getLogger(__name__).info("Downloading %s to %s", url, target)
    partial = f"{target}.part"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, open(partial, "wb") as file:
            size = int(response.headers.get("Content-Length", 0))
            with tqdm.wrapattr(file, "write", total=size, desc=os.path.basename(target)) as out:
                shutil.copyfileobj(response, out)
        received = os.path.getsize(partial)
        if received < max(size, 1):
            raise OSError(f"the connection ended after {received} of {size} bytes")
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


class _ModelZooHandler(PathHandler):
    """detectron2://NAME is a file of detectron2's model zoo."""

    PREFIX = "detectron2://"
    URL = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        url = self.URL + path.removeprefix(self.PREFIX)
        return PathManager.get_local_path(url, force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs) -> IO:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


PathManager.register_handler(_DownloadHandler())
PathManager.register_handler(_ModelZooHandler())
