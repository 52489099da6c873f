"""A time limit for work that may never come back: a decoder in an endless loop, a network disk that has gone away.

Native code can't be interrupted, so the work runs on a thread of its own; where that makes no progress it is left
behind, and the next piece of work starts on a new one.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Results are handed over in batches: two threads that pass single ones to and fro spend their time on waiting.
_BATCH, _MAX_BATCH = 64, 1024
_LOOK_EVERY_S = 0.1


class TimedOut(Exception):
    """A piece of work gave nothing for the allowed seconds."""


@dataclasses.dataclass(frozen=True)
class End:
    """Follows an item's results: it is done, or failed with `error`."""

    error: Exception | None = None


def each(
    items: Iterable[Any], work: Callable[[], Callable[[Any], Iterator[Any]]], *, timeout_s: float
) -> Iterator[tuple[Any, Any]]:
    """Work through items in order, with a limit on the time between two results.

    Args:
      items: what to work on.
      work: makes the worker, once for each thread: a function of an item that yields its results.
      timeout_s: the longest wait for a result or for the end of an item.
    Yields:
      (item, result) for each result; then for each item (item, End), its error TimedOut where it was left behind.
    """
    items = list(items)
    place = 0
    while place < len(items):
        channel = _Channel()
        # A daemon, since a process must be able to end although a decoder never does.
        threading.Thread(target=_work_through, args=(items[place:], work(), channel), daemon=True).start()
        try:
            progress_at = time.monotonic()
            while place < len(items):
                results = channel.take(min(_LOOK_EVERY_S, timeout_s))
                if not results and time.monotonic() - progress_at >= timeout_s:
                    yield items[place], End(TimedOut())
                    place += 1
                    break
                for result in results:
                    yield items[place], result
                    place += isinstance(result, End)
                if results:
                    progress_at = time.monotonic()
        finally:
            channel.close()


def _work_through(items: list, work: Callable[[Any], Iterator[Any]], channel: "_Channel") -> None:
    for item in items:
        try:
            for result in work(item):
                if not channel.put(result):
                    return
            end = End()
        except Exception as error:
            end = End(error)
        if not channel.put(end):
            return
    channel.flush()


class _Channel:
    """Results on their way from one thread to another, in order."""

    def __init__(self):
        self._results: list[Any] = []
        self._state = threading.Condition()
        self._flushed = self._closed = False

    def put(self, result: Any) -> bool:
        """Add a result, waiting where too many are there already; False where nobody takes them any more."""
        with self._state:
            self._state.wait_for(lambda: self._closed or len(self._results) < _MAX_BATCH)
            self._results.append(result)
            if len(self._results) == _BATCH:
                self._state.notify_all()
            return not self._closed

    def flush(self) -> None:
        with self._state:
            self._flushed = True
            self._state.notify_all()

    def take(self, wait_s: float) -> list[Any]:
        """All results there are, after waiting at most so long for a batch of them."""
        with self._state:
            self._state.wait_for(lambda: self._flushed or len(self._results) >= _BATCH, wait_s)
            results, self._results = self._results, []
            self._state.notify_all()
            return results

    def close(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()
