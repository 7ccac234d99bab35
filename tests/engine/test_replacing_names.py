"""Names of detectron2 are replaced once, everywhere, and all of them or none."""

import logging
import sys
import types

import detectron2
import pytest
import torch

from mask2former.patch import know_all_devices, names
from mask2former.patch.replace import Replacement, replace
from mask2former.patch.torch_view import BestDevice, TorchView

ADVICE = "install another"


def greet(name):
    return f"hello {name}"


def shout(original, name):
    return original(name).upper()


@pytest.fixture
def library(monkeypatch):
    """A package with a function, a class, a module that it asks, and a user of the function."""
    library = types.ModuleType("library")
    library.talk = types.ModuleType("library.talk")

    class Speaker:
        def speak(self):
            return library.user.say("you")

    def say(name):
        return f"{library.talk.tool.__name__} {name}"

    library.talk.say, library.talk.Speaker, library.talk.tool = say, Speaker, sys
    library.user = types.ModuleType("library.user")
    library.user.say = say
    library.user.tool = sys
    for module in (library, library.talk, library.user):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return library


def test_functions_are_replaced_wherever_they_were_imported(library):
    replace([Replacement("library.talk", "say", greet)], "changed", ADVICE)
    assert library.talk.say is library.user.say is greet
    assert library.talk.Speaker().speak() == "hello you"


def test_modules_are_replaced_where_they_are_named_only(library):
    view = TorchView(__name__="view")
    replace([Replacement("library.talk", "tool", view)], "changed", ADVICE)
    assert library.talk.say("you") == "view you"
    assert library.user.tool is sys


def test_methods_and_what_goes_around_the_original(library):
    rows = [
        Replacement("library.talk", "say", shout, around=True),
        Replacement("library.talk", "Speaker.speak", lambda self: "nothing"),
    ]
    for _ in range(2):  # the second time, nothing is left to do
        replace(rows, "changed", ADVICE)
        assert library.user.say("you") == "SYS YOU"
        assert library.talk.Speaker().speak() == "nothing"


def test_each_name_is_logged_once(library, caplog):
    caplog.set_level(logging.DEBUG, "mask2former.patch")
    rows = [Replacement("library.talk", "say", greet), Replacement("library.talk", "tool", torch)]
    replace(rows, "now knows all devices", ADVICE)
    replace(rows, "now knows all devices", ADVICE)
    assert caplog.messages == [
        "library.talk.say now knows all devices",
        "library.talk.tool now knows all devices",
    ]


@pytest.mark.parametrize(
    "module, name",
    [
        ("library.talk", "whisper"),
        ("library.talk", "Speaker.whisper"),
        ("library.write", "say"),
        ("no_library.talk", "say"),
    ],
)
def test_missing_name_leaves_all_as_it_was(library, module, name):
    before = library.talk.say
    rows = [Replacement("library.talk", "say", greet), Replacement(module, name, greet)]
    with pytest.raises(ImportError) as error:
        replace(rows, "changed", ADVICE)
    assert str(error.value) == f"there is no {module}.{name}; install another"
    assert library.talk.say is library.user.say is before


def test_what_a_module_itself_misses_is_told(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        replace([Replacement("needs_another", "say", greet)], "changed", ADVICE)


@pytest.fixture
def replaced(monkeypatch):
    """What would have been replaced in detectron2."""
    found = []
    monkeypatch.setattr(names, "replace", lambda rows, *texts: found.append((rows, *texts)))
    return found


@pytest.mark.parametrize(
    "has_unknown, says_so, is_replaced",
    [(False, False, False), (True, False, True), (True, True, False)],
)
def test_only_what_is_needed(monkeypatch, replaced, has_unknown, says_so, is_replaced):
    monkeypatch.setattr(names, "unknown_to_detectron2", lambda: has_unknown)
    monkeypatch.setattr(detectron2, "KNOWS_ALL_DEVICES", says_so, raising=False)
    told = know_all_devices()
    assert bool(replaced) == is_replaced == ("detectron2.utils.comm.synchronize" in told)


def test_another_version_of_detectron2_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(names, "unknown_to_detectron2", lambda: True)
    monkeypatch.setattr(detectron2, "KNOWS_ALL_DEVICES", False, raising=False)
    gone = (Replacement("detectron2.utils.comm", "synchronise", greet),)
    monkeypatch.setattr(names, "CUDA_ONLY", gone)
    expected = (
        r"^there is no detectron2\.utils\.comm\.synchronise; detectron2 \S+"
        r" cannot .*; install 'git\+https.*@02b5c4e2', or set M2F_DETECTRON2=embedded, which needs"
    )
    with pytest.raises(ImportError, match=expected):
        know_all_devices()


def test_torch_as_seen_by_modules_that_ask_for_cuda(monkeypatch):
    monkeypatch.setattr("mask2former.device.best_device_type", lambda: "sdaa")
    monkeypatch.setattr(
        torch, "sdaa", types.SimpleNamespace(memory_allocated=lambda: 7), raising=False
    )
    view = TorchView(cuda=BestDevice())
    assert view.Tensor is torch.Tensor and view.optim.SGD is torch.optim.SGD
    assert view.cuda.is_available() and view.cuda.memory_allocated() == 7
    # what this device does not tell
    assert view.cuda.max_memory_reserved() != view.cuda.max_memory_reserved()
    assert view.cuda.memory_summary() == ""
    with pytest.raises(AttributeError, match="synchronize"):  # times would be wrong without it
        view.cuda.synchronize()
    assert BestDevice(needed="memory_allocated").is_available()
    assert not BestDevice(needed="max_memory_allocated").is_available()
