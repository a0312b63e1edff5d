"""Works ahead of the consumer of an iterator, in one background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class _Item(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(make: Callable[[], Iterator[T]], depth: int) -> Iterator[T]:
    """The items of make(), in order, up to `depth` of them made before they are asked for.

    make() runs in the thread, which starts with the first item that is asked for. An exception there is raised here
    after the items before it. Whoever leaves early closes this iterator (as a `for` loop's end or garbage collection
    does): closing waits until the thread has finished the item in hand and is gone.
    """
    queue: SimpleQueue[_Item[T] | _End] = SimpleQueue()
    free = threading.Semaphore(depth - 1)
    left = threading.Event()

    def work() -> None:
        error = None
        try:
            for value in make():
                queue.put(_Item(value))
                free.acquire()
                if left.is_set():
                    break
        except BaseException as caught:  # whatever it is, it belongs to the consumer
            error = caught
        queue.put(_End(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while isinstance(item := queue.get(), _Item):
            free.release()
            yield item.value
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        free.release()
        if thread is not threading.current_thread():  # where the garbage collector runs is not ours to choose
            thread.join()
