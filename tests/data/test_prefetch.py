"""Working ahead: the same items in order, errors where they belong, no thread left over."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from subshot.data.prefetch import prefetched


def _threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_items_come_in_order_and_from_another_thread() -> None:
    makers = set()

    def numbers() -> Iterator[int]:
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    assert list(prefetched(numbers, 3)) == list(range(50))
    assert len(makers) == 1 and threading.get_ident() not in makers
    assert _threads() == 0


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_items_wait(depth: int) -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = prefetched(numbers, depth)
    assert not made  # nothing runs before the first item is asked for
    for taken in range(1, 8):
        next(ahead)
        deadline = time.monotonic() + 10
        while len(made) < taken + depth and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)
        assert len(made) == taken + depth


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    ahead = prefetched(broken, 8)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert _threads() == 0


def test_an_error_before_the_first_item() -> None:
    def broken() -> Iterator[int]:
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        next(prefetched(broken, 2))
    assert _threads() == 0


def test_an_iterator_that_is_left_ends_its_thread() -> None:
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    for value in prefetched(endless, 4):
        if value == 3:
            break
    gc.collect()
    assert _threads() == 0
    ahead = prefetched(endless, 4)
    next(ahead)
    assert _threads() == 1
    with pytest.raises(ZeroDivisionError):
        for _ in ahead:
            _ = 1 / 0
    del ahead
    gc.collect()
    assert _threads() == 0
