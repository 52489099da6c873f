"""Trains many heads side by side, a thread for each core, over one copy of the features.

NumPy's products and loops leave Python's lock, so that threads do. Each head is trained on one core, with BLAS held to
one thread, and so exactly as it would be alone, whatever the number of cores.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence

from threadpoolctl import threadpool_limits

from launch.head_divisions import FOLD, DivisionName
from model.head_inputs import HeadInputs
from model.head_settings import HeadSettings
from model.heads import Diverged, TrainedHead, train_head


@dataclasses.dataclass(frozen=True)
class HeadTask:
    """One head to train."""

    setup: str
    settings: HeadSettings
    seed: int
    division: DivisionName

    @property
    def inputs_key(self) -> tuple:
        """Heads of one key share their inputs."""
        validates = self.validates and self.division.kind == FOLD  # decides only what a fold's training clips are
        return self.division, validates, self.settings.pooling, self.settings.standardise

    @property
    def validates(self) -> bool:
        return self.settings.early_stopping_patience > 0


def train_all(
    tasks: Sequence[HeadTask],
    make_inputs: Callable[[HeadTask], HeadInputs],
    *,
    num_threads: int = 0,
    on_epoch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[HeadTask, HeadInputs, TrainedHead | Diverged]]:
    """Train all heads; yields each as it is done, in no fixed order.

    Args:
      make_inputs: called once for each `inputs_key`; what it gives is let go when its last head is done.
      num_threads: 0 takes a thread for each core this process may use.
      on_epoch: called after each epoch of each head, from their threads.
    Raises:
      ValueError: inputs can't be made, or settings and inputs don't go together.
    """
    num_threads = num_threads or _num_cores()
    shared = _SharedInputs(tasks, make_inputs)
    stop = threading.Event()

    def train(task: HeadTask):
        with shared.of(task) as inputs:
            try:
                head = train_head(
                    inputs, task.settings, seed=task.seed, on_epoch=lambda metrics: on_epoch(), should_stop=stop.is_set
                )
            except Diverged as error:
                head = error
            return task, inputs, head

    place = {key: number for number, key in enumerate(dict.fromkeys(task.inputs_key for task in tasks))}
    waiting = iter(sorted(tasks, key=lambda task: place[task.inputs_key]))  # what shares inputs together
    with threadpool_limits(1), concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        running: set[concurrent.futures.Future] = set()
        try:
            while True:
                for task in waiting:
                    running.add(threads.submit(train, task))
                    if len(running) > num_threads:  # one waits; what is done is taken before more begins
                        break
                if not running:
                    return
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            stop.set()
            for future in running:
                future.cancel()
            concurrent.futures.wait(running)


def _num_cores() -> int:
    """Cores that this process may use, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _SharedInputs:
    """Inputs by key, made by the first head that needs them and dropped after the last."""

    def __init__(self, tasks: Sequence[HeadTask], make: Callable[[HeadTask], HeadInputs]):
        self._make = make
        self._lock = threading.Lock()
        self._locks: dict[tuple, threading.Lock] = {}
        self._left: dict[tuple, int] = {}
        self._made: dict[tuple, HeadInputs] = {}
        for task in tasks:
            self._locks.setdefault(task.inputs_key, threading.Lock())
            self._left[task.inputs_key] = self._left.get(task.inputs_key, 0) + 1

    @contextlib.contextmanager
    def of(self, task: HeadTask) -> Iterator[HeadInputs]:
        key = task.inputs_key
        with self._locks[key]:
            if key not in self._made:
                self._made[key] = self._make(task)
            inputs = self._made[key]
        try:
            yield inputs
        finally:
            with self._lock:
                self._left[key] -= 1
                if not self._left[key]:
                    self._made.pop(key, None)
