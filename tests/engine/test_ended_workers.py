"""What is told when a process that loads data has ended: real ones, that real signals end."""

import gc
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mask2former.data import sharing
from mask2former.data.errors import PlainErrors
from mask2former.engine.user_errors import CANDIDATES, user_sentence


class Ending(Dataset):
    """Its process ends when the fourth sample is asked for: by a signal, or by exiting."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3 and self.how == "exit":
            os._exit(1)
        if index == 3 and self.how:
            os.kill(os.getpid(), self.how)
            time.sleep(10)
        return {"image": torch.zeros(10, 10)}


def sentence_of(dataset, num_workers=1):
    loader = DataLoader(dataset, num_workers=num_workers, collate_fn=sharing.shared)
    with pytest.raises(CANDIDATES) as error:
        list(PlainErrors(loader))
    sentence = user_sentence(error.value)
    del error
    gc.collect()  # tracebacks would keep the other processes for some time
    assert multiprocessing.active_children() == []
    return sentence


@pytest.mark.parametrize(
    "how, told, advice",
    [
        (signal.SIGKILL, "(Killed)", "memory runs out: lower DATALOADER.NUM_WORKERS"),
        (signal.SIGBUS, "(Bus error)", "make /dev/shm larger (docker run --shm-size 8g) or lower"),
        (signal.SIGTERM, "(Terminated)", "start the run again with --resume"),
        (signal.SIGSEGV, "(Segmentation fault)", "DATALOADER.NUM_WORKERS 0 to see where"),
        ("exit", "has ended with status 1", "what it wrote tells why"),
    ],
)
def test_each_end_has_its_reason(how, told, advice):
    sentence = sentence_of(Ending(how))
    assert told in sentence and advice in sentence and "\n" not in sentence
    assert sentence.startswith("a process that loads data, pid ")


def test_an_end_without_a_reason():
    sentence = user_sentence(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"))
    assert sentence.startswith("a process that loads data, pid 7, 8, has ended; most often memory")


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize(
    "kind, num_workers",
    [(RuntimeError, 0), (RuntimeError, 1), (ValueError, 0), (ConnectionResetError, 0)],
)
def test_other_errors_stay_bugs(kind, num_workers, monkeypatch):
    monkeypatch.setattr(sharing, "GRACE", 0)
    error = kind("a DataLoader worker (pid 1) is killed by signal: Killed")
    assert sentence_of(Failing(error), num_workers) is None


def test_full_shared_memory_is_told(monkeypatch):
    """By torch in its own thread, which loses the batch: the training would wait for ever."""
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    loader = PlainErrors(DataLoader(Ending(None), collate_fn=sharing.shared))
    assert len(list(loader)) == 8  # nothing is sent
    sentence = sentence_of(Ending(None))
    assert "make /dev/shm larger" in sentence and "lower DATALOADER.NUM_WORKERS" in sentence


def full(tensor):
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_7_8>: No space left on device (28)"
    )
