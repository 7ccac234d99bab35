"""What is read ahead is what is asked for, in any order."""

import threading

import pytest

from mask2former.evaluation.read_ahead import ReadAhead

NAMES = ["a", "b", "c"]


def recorded(calls):
    def read(name):
        calls.append(name)
        if name == "broken":
            raise ValueError("broken: not a whole picture")
        return name.upper()

    return read


@pytest.mark.parametrize("order", ["abc", "cba", "bb", "acab", "x", "axb"])
def test_any_order_gives_the_same(order):
    calls = []
    ahead = ReadAhead(NAMES, recorded(calls), str)
    for name in order:
        assert [future.result() for future in ahead(name)] == [name.upper(), name]


def test_what_follows_is_read_once_and_before_it_is_asked_for():
    calls = []
    ahead = ReadAhead(NAMES, recorded(calls))
    (first,) = ahead("a")
    second = ahead._ahead[1]
    assert [f.result() for f in (first, *second)] == ["A", "B"]
    assert ahead("b") == second
    assert ahead("c")[0].result() == "C" and ahead._ahead is None
    assert calls == NAMES


def test_each_file_of_a_name_has_a_thread():
    both = threading.Barrier(2, timeout=20)
    ahead = ReadAhead([], lambda name: both.wait(), lambda name: both.wait())
    assert sorted(future.result() for future in ahead("a")) == [0, 1]


def test_what_is_not_asked_for_may_be_broken():
    ahead = ReadAhead(["a", "broken", "b"], recorded([]))
    assert ahead("a")[0].result() == "A"
    assert ahead("b")[0].result() == "B"
    assert ahead("a")[0].result() == "A"
    (broken,) = ahead("broken")
    with pytest.raises(ValueError, match="broken: not a whole picture"):
        broken.result()


def test_a_stop_forgets_and_ends_the_threads():
    before = set(threading.enumerate())
    ahead = ReadAhead(NAMES, recorded([]), str)
    assert set(threading.enumerate()) == before
    for _ in range(2):
        ahead("a")
        threads = set(threading.enumerate()) - before
        assert len(threads) == 2
        ahead.stop()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        assert ahead._ahead is None
    assert ahead("c")[0].result() == "C"
    ahead.stop()
