"""Work done ahead on a thread of its own, so that what makes things and what uses them need not wait for each other."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


@contextlib.contextmanager
def ahead(items: Generator[Item, None, None], *, max_waiting: int) -> Iterator[Iterator[Item]]:
    """The same items in the same order, made on a thread; an error there is raised where they are used.

    Args:
      max_waiting: items that may wait to be used before the thread waits in turn.
    """
    waiting: queue.Queue = queue.Queue(max_waiting)
    stop = threading.Event()

    def put(entry: tuple) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put(entry, timeout=0.1)

    def make() -> None:
        try:
            with contextlib.closing(items) as made:  # what it holds is let go of here, not some time later
                for item in made:
                    put((item, None))
                    if stop.is_set():
                        return
            put((_END, None))
        except BaseException as error:  # whatever it is, it must not vanish with the thread
            put((_END, error))

    def use() -> Iterator[Item]:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        stop.set()
        thread.join()
