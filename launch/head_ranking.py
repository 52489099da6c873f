"""Which heads lead, shown while a search goes on."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from launch import head_table
from launch.head_work import HeadTask

_SHOWN = 5
_EVERY_S = 15.0


class LiveRanking:
    """Prints the leading setups, by validation accuracy, above a progress bar: when the first changes, or now and then.

    Nothing is printed where there are few setups, or no validation split.
    """

    def __init__(self, bar: tqdm, tasks: Sequence[HeadTask], *, shown: bool):
        self._bar = bar
        self._shown = shown and len({task.setup for task in tasks}) > _SHOWN
        self._accuracies: dict[str, list[float]] = {}
        self._first: str | None = None
        self._last_s = time.monotonic()

    def add(self, task: HeadTask, result: Mapping[str, Any]) -> None:
        """Take in a head that is done."""
        if task.division.folder or "validation_accuracy" not in result:
            return
        self._accuracies.setdefault(task.setup, []).append(result["validation_accuracy"])
        if not self._shown:
            return
        rows = [
            {"name": name, "validation_accuracy": statistics.fmean(accuracies)}
            for name, accuracies in self._accuracies.items()
        ]
        first = max(rows, key=lambda row: row["validation_accuracy"])["name"]
        if first == self._first and time.monotonic() - self._last_s < _EVERY_S:
            return
        self._first, self._last_s = first, time.monotonic()
        for line in head_table.ranking(rows, limit=_SHOWN):
            self._bar.write(line, file=sys.stderr)
