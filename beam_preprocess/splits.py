"""Dividing clips into train, validation and test: by class in proportion, whole groups, equal content never apart.

Pure functions of what the clips are. File order, worker count and Python's salted hash() play no part.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_preprocess import balance
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
    """Clip id to split name, by the settings' method.

    A manifest's split wins for its whole group, by either method.

    "exact": clips that share a group or their content form one unit, which goes to one split. Units are taken in an
    order shuffled by hash; each goes to the split where it fits and that is furthest below its share of the unit's
    classes, and moves of single units then bring the counts as near to the asked fractions as single moves can. Where
    every unit is one clip, counts are exact: the class's share, rounded.

    "stable": a group's split follows from a hash of its name and the seed, so that it never changes when others come or
    go. Equal content may then stand in two splits: see `content_in_two_splits`.

    Raises:
      DatasetError: a class has too few units to stand in every split (by "stable", no training clip), or a unit is
        wanted
        in two splits.
    """
    fractions = settings.fractions
    units = _units(items, join_content=settings.method == "exact")
    chosen = {key: split for key, unit in units.items() if (split := _fixed_split(unit))}
    counts = {key: collections.Counter(item.label for item in unit) for key, unit in units.items()}
    if settings.method == "stable":
        chosen = {key: _by_hash(unit[0].group, settings.seed, fractions) for key, unit in units.items()} | chosen
        _check_training_clips(units, chosen)
    else:
        _check_enough(units, chosen, fractions)
        free = balance.divide(units, counts, chosen, balance.split_goal(counts, fractions), settings.seed)
        if free:
            balance.fill_empty(free, chosen, counts, fractions)
    return {item.id: chosen[key] for key, unit in units.items() for item in unit}


def assign_folds(items: Sequence[Item], split_of: Mapping[str, str], settings: SplitSettings) -> dict[str, int]:
    """Clip id to fold, 0 to `settings.folds` - 1, of all clips outside the test split; by the settings' method.

    Raises:
      DatasetError: a class has fewer units than there are folds.
    """
    if not settings.folds:
        return {}
    items = [item for item in items if split_of[item.id] != "test"]
    units = _units(items)  # equal audio stands in one fold by either method
    num_units = collections.Counter(label for unit in units.values() for label in {item.label for item in unit})
    for label, number in sorted(num_units.items()):
        if number < settings.folds:
            raise DatasetError(
                f"class {label!r} has {number} group{'s' * (number != 1)} outside the test split, fewer than "
                f"--folds={settings.folds}: use fewer folds, or smaller groups"
            )
    folds = {fold: 1 / settings.folds for fold in range(settings.folds)}
    if settings.method == "stable":
        chosen = {key: _by_hash(unit[0].group, f"fold {settings.seed}", folds) for key, unit in units.items()}
    else:
        counts = {key: collections.Counter(item.label for item in unit) for key, unit in units.items()}
        chosen = {}
        balance.divide(units, counts, chosen, balance.equal_goal(counts, settings.folds), f"fold {settings.seed}")
    return {item.id: chosen[key] for key, unit in units.items() for item in unit}


def content_in_two_splits(items: Iterable[Item], split_of: Mapping[str, str]) -> dict[str, str]:
    """Clips to leave out so that equal content never stands in two splits: their ids to that of the clip that stays.

    Happens by the "stable" method only. Held-out splits keep theirs, so that a new training recording never takes a
    clip away from the test split.
    """
    by_content = collections.defaultdict(list)
    for item in items:
        by_content[item.content_hash].append(item.id)
    rank = {"test": 0, "validation": 1, "train": 2}
    left_out = {}
    for ids in by_content.values():
        stays = min(ids, key=lambda id: (rank[split_of[id]], id))
        left_out |= {id: stays for id in ids if split_of[id] != split_of[stays]}
    return left_out


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
    fixed = {key: split for key, unit in units.items() if (split := _fixed_split(unit))}
    if settings.method == "exact":
        _check_enough(units, fixed, settings.fractions)


def _by_hash(group: str, seed: int | str, shares: Mapping[Any, float]) -> Any:
    """The share into which the hash of a group's name falls, held-out splits first."""
    place = int.from_bytes(hashlib.sha256(f"stable {seed}\n{group}".encode()).digest()[:8]) / 2**64
    for name, share in reversed(list(shares.items())):
        if place < share:
            return name
        place -= share
    return next(iter(shares))


def _check_training_clips(units, chosen) -> None:
    """By the stable method a class may be missing where it has few groups, but not in training."""
    labels = {item.label for unit in units.values() for item in unit}
    trained = {item.label for key, unit in units.items() if chosen[key] == "train" for item in unit}
    for label in sorted(labels - trained):
        raise DatasetError(
            f"no training clip of class {label!r}: --split=stable puts all of its groups elsewhere. Add recordings, "
            "try "
            "another --split_seed, or use --split=exact"
        )


def _units(items: Iterable[Item], *, join_content: bool = True) -> dict[str, list[Item]]:
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
        group = find(("group", item.group))
        if join_content:
            leader[find(("content", item.content_hash))] = group
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
        if key in fixed:
            for label in labels:
                settled[label].add(fixed[key])
        else:
            num_units.update(labels)
    short = [label for label in sorted(num_clips) if num_units[label] < len(set(fractions) - settled[label])]
    # A manifest that fixes every clip's split has decided; otherwise each class must reach every split.
    if short and len(fixed) < len(units):
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
