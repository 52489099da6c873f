"""Dividing units of clips into parts so that each class's counts come as near to their goals as whole units allow."""

import collections
import hashlib
from collections.abc import Mapping
from typing import Any

from tfdata.spec import DatasetError


def split_goal(
    counts: Mapping[str, collections.Counter], fractions: Mapping[str, float]
) -> dict[str, collections.Counter]:
    """Clips wanted by split and class: test and validation rounded, at least 1, and at least 1 left for each after."""
    totals = collections.Counter()
    for count in counts.values():
        totals.update(count)
    goal = {split: collections.Counter() for split in fractions}
    order = [split for split in ("test", "validation") if split in fractions]
    for label, total in totals.items():
        rest = total
        for position, split in enumerate(order):
            still_to_serve = len(order) - position
            wanted = max(1, int(total * fractions[split] + 0.5))
            goal[split][label] = min(wanted, max(1, rest - still_to_serve))
            rest -= goal[split][label]
        goal["train"][label] = rest
    return goal


def equal_goal(counts: Mapping[str, collections.Counter], folds: int) -> dict[int, collections.Counter]:
    """Clips wanted by fold and class: even, what is left over dealt on from class to class."""
    totals = collections.Counter()
    for count in counts.values():
        totals.update(count)
    goal = {fold: collections.Counter() for fold in range(folds)}
    dealt = 0
    for label, total in sorted(totals.items()):
        for fold in goal:
            goal[fold][label] = total // folds
        for _ in range(total % folds):
            goal[dealt % folds][label] += 1
            dealt += 1
    return goal


def divide(units, counts, chosen: dict, goal: Mapping, seed: int | str) -> list[str]:
    """Choose one of the goal's parts for each unit that has none in `chosen`; returns those units."""
    order = sorted(units, key=lambda key: hashlib.sha256(f"{seed}\n{key}".encode()).digest())
    free = [key for key in order if key not in chosen]
    have = _have(counts, chosen, goal)
    for key in free:
        chosen[key] = max(goal, key=lambda part: _room(counts[key], have[part], goal[part]))
        have[chosen[key]].update(counts[key])
    _move_to_goal(free, chosen, counts, have, goal)
    return free


def _have(counts, chosen, parts) -> dict[Any, collections.Counter]:
    """Clips by part and class, of the units that are chosen."""
    have = {part: collections.Counter() for part in (*parts, *set(chosen.values()))}
    for key, part in chosen.items():
        have[part].update(counts[key])
    return have


def _room(unit: Mapping[str, int], have: Mapping[str, int], goal: Mapping[str, int]) -> tuple[float, float]:
    """How well a unit fits into a split: first how little it would overshoot, then how far the split is below."""
    overshoot = sum(max(0, have[label] + number - goal[label]) for label, number in unit.items())
    below = sum(number * (goal[label] - have[label]) / max(goal[label], 1) for label, number in unit.items())
    return -overshoot, below


def _move_to_goal(free, chosen, counts, have, goal) -> None:
    """Move single free units while that brings the counts nearer to their goals; each move lessens the error."""

    def error(split, label, change=0):
        return abs(have[split][label] + change - goal[split][label])

    def gain(key, target):
        source = chosen[key]
        return sum(
            error(source, label) + error(target, label) - error(source, label, -number) - error(target, label, number)
            for label, number in counts[key].items()
        )

    moved = True
    while moved:
        moved = False
        for key in free:
            source = chosen[key]
            target = max(goal, key=lambda split: gain(key, split) if split != source else 0)
            # A class must not lose its last clip in a split to rounding.
            last = any(have[source][label] == number for label, number in counts[key].items())
            if target != source and gain(key, target) > 0 and not last:
                have[source].subtract(counts[key])
                have[target].update(counts[key])
                chosen[key] = target
                moved = True


def fill_empty(free, chosen, counts, fractions) -> None:
    """Give each class a unit in every split, the smallest that empties nothing else.

    Raises:
      DatasetError: it can't be done, since groups span classes; names the class and the split.
    """
    have = _have(counts, chosen, fractions)
    labels = sorted({label for count in counts.values() for label in count})
    for _ in range(len(labels) * len(fractions)):  # a fill may need another; this many suffice
        empty = [(label, split) for label in labels for split in fractions if not have[split][label]]
        if not empty:
            return
        for label, split in empty:
            can_go = [
                key
                for key in free
                if label in counts[key] and all(have[chosen[key]][other] > n for other, n in counts[key].items())
            ]
            if can_go and not have[split][label]:
                key = min(can_go, key=lambda key: sum(counts[key].values()))
                have[chosen[key]].subtract(counts[key])
                have[split].update(counts[key])
                chosen[key] = split
    for label in labels:
        for split in fractions:
            if not have[split][label]:
                raise DatasetError(
                    f"no clip of {label!r} can be in {split} without splitting a group: use smaller groups, or set "
                    "--test_fraction or --validation_fraction to 0"
                )
