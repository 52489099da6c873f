"""Dividing clips into train, validation and test: by class in proportion, whole groups, equal content never apart.

Pure functions of what the clips are. File order, worker count and Python's salted hash() play no part.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from beam_preprocess.recordings import Recording
from beam_preprocess.settings import SplitSettings
from tfdata.spec import DatasetError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A clip as far as splitting needs it. `split` is the manifest's wish, or None."""

    id: str
    label: str
    group: str
    content_hash: str
    split: str | None = None


def assign_splits(items: Sequence[Item], settings: SplitSettings) -> dict[str, str]:
    """Clip id to split name.

    Clips that share a group or their content form one unit, which goes to one split. A manifest's split wins for its
    whole unit. The others are taken in an order shuffled by hash; each goes to the split where it fits and that is
    furthest below its share of the unit's classes, and moves of single units then bring the counts as near to the
    asked fractions as single moves can. Where every unit is one clip, counts are exact: the class's share, rounded.

    Raises:
      DatasetError: a class has too few units to stand in every split, or a unit is wanted in two splits.
    """
    fractions = settings.fractions
    units = _units(items)
    fixed = {key: _fixed_split(unit) for key, unit in units.items()}
    _check_enough(units, fixed, fractions)
    counts = {key: collections.Counter(item.label for item in unit) for key, unit in units.items()}
    goal = _goal(counts, fractions)

    order = sorted(units, key=lambda key: hashlib.sha256(f"{settings.seed}\n{key}".encode()).digest())
    chosen = {key: split for key, split in fixed.items() if split}
    have = {split: collections.Counter() for split in (*fractions, *set(chosen.values()))}
    for key, split in chosen.items():
        have[split].update(counts[key])
    free = [key for key in order if key not in chosen]
    for key in free:
        chosen[key] = max(fractions, key=lambda split: _room(counts[key], have[split], goal[split]))
        have[chosen[key]].update(counts[key])
    _move_to_goal(free, chosen, counts, have, goal)
    if free:
        _fill_empty(free, chosen, counts, have, fractions)
    return {item.id: chosen[key] for key, unit in units.items() for item in unit}


def check_enough_recordings(recordings: Iterable[Recording], settings: SplitSettings) -> None:
    """The check of `assign_splits` that needs no audio, for use before any is decoded.

    Raises:
      DatasetError: a class has too few recordings or groups to stand in every split.
    """
    units = _units(
        Item(
            id=recording.name,
            label=recording.label,
            group=recording.group,
            content_hash=recording.name,
            split=recording.split,
        )
        for recording in recordings
        if recording.label is not None
    )
    _check_enough(units, {key: _fixed_split(unit) for key, unit in units.items()}, settings.fractions)


def _units(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Clips joined by a common group or common content (union-find), each unit called by its smallest clip id."""
    leader: dict[tuple, tuple] = {}

    def find(node):
        leader.setdefault(node, node)
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    items = sorted(items, key=lambda item: item.id)
    for item in items:
        leader[find(("content", item.content_hash))] = find(("group", item.group))
    units = collections.defaultdict(list)
    for item in items:
        units[find(("group", item.group))].append(item)
    return {unit[0].id: unit for unit in units.values()}


def _fixed_split(unit: list[Item]) -> str | None:
    wishes = {item.split: item for item in unit if item.split}
    if len(wishes) > 1:
        (first, a), (second, b) = sorted(wishes.items())[:2]
        raise DatasetError(
            f"the manifest puts {a.id} into {first} and {b.id} into {second}, but they share a group or are "
            "equal audio: give both the same split"
        )
    return next(iter(wishes), None)


def _check_enough(units, fixed, fractions) -> None:
    """Every class needs a unit for each split that is to be made, wishes of the manifest aside."""
    num_units, num_clips, settled = collections.Counter(), collections.Counter(), collections.defaultdict(set)
    for key, unit in units.items():
        labels = {item.label for item in unit}
        num_clips.update(item.label for item in unit)
        if fixed[key]:
            for label in labels:
                settled[label].add(fixed[key])
        else:
            num_units.update(labels)
    short = [label for label in sorted(num_clips) if num_units[label] < len(set(fractions) - settled[label])]
    # A manifest that fixes every clip's split has decided; otherwise each class must reach every split.
    if short and any(split is None for split in fixed.values()):
        named = "; ".join(
            f"{label!r} has {num_clips[label]} clip{'s' * (num_clips[label] != 1)} in "
            f"{num_units[label] + len(settled[label])} group{'s' * (num_units[label] != 1)}"
            for label in short
        )
        raise DatasetError(
            f"too few clips to split into {', '.join(fractions)}: {named}; each class needs at least "
            f"{len(fractions)} that share neither group nor content. Add recordings, take the class out of the input, "
            "or set --test_fraction or --validation_fraction to 0"
        )


def _goal(counts: Mapping[str, collections.Counter], fractions: Mapping[str, float]) -> dict[str, collections.Counter]:
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


def _fill_empty(free, chosen, counts, have, fractions) -> None:
    """Give each class a unit in every split, the smallest that empties nothing else.

    Raises:
      DatasetError: it can't be done, since groups span classes; names the class and the split.
    """
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
