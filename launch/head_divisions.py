"""Which clips train, choose and test a head: the dataset's own splits, and what else one may ask of the same features.

Features do not depend on how clips are split, so that nothing has to be cached again for any of these.
"""

import dataclasses

import numpy as np

from model.head_inputs import Division
from tfdata import layout, schema
from tfdata.in_memory import InMemory
from tfdata.spec import DatasetError, DatasetSpec

OWN, RANDOM_SPLIT, FOLD, FRACTION = "own", "random_split", "fold", "fraction"


@dataclasses.dataclass(frozen=True)
class DivisionName:
    """One way to divide: its kind, and which fold, or which fraction of the training clips by which seed."""

    kind: str = OWN
    fold: int = 0
    fraction: float = 1.0
    seed: int = 0

    @property
    def folder(self) -> str:
        """Where its heads stand below the setup's folder; "" for the dataset's own splits."""
        return {OWN: "", RANDOM_SPLIT: RANDOM_SPLIT, FOLD: f"fold{self.fold}", FRACTION: f"fraction{self.fraction!r}"}[
            self.kind
        ]


def num_folds(features: InMemory) -> int:
    return int(features.folds.max(initial=schema.NO_FOLD)) + 1


def divide(name: DivisionName, features: InMemory, spec: DatasetSpec, *, validates: bool = False) -> Division:
    """The rows of one division.

    Args:
      validates: whether the heads need validation clips in a cross-validation (for early stopping): they are then taken
        from the next fold instead of being trained on.
    """
    if name.kind == RANDOM_SPLIT:
        return _random_split(features)
    if name.kind == FOLD:
        return _fold(name.fold, features, validates)
    train = features.rows("train")
    kept = np.arange(len(train)) if name.kind == OWN else _fraction(name, features, train)
    variants = layout.variant_splits(spec, "train")
    return Division(
        train=np.concatenate([train[kept], *(features.rows(variant)[kept] for variant in variants)]),
        validation=features.rows("validation"),
        test=features.rows("test"),
        num_variants=len(variants),
    )


def _random_split(features: InMemory) -> Division:
    """As many clips of each class in each split as by the dataset's own, but any clip anywhere: groups are torn apart.

    What one gets by splitting at random, as is often done; the difference to the own splits is what leaks.
    """
    names = ("train", "validation", "test")
    rows = {name: features.rows(name) for name in names}
    rng = np.random.default_rng(0)
    dealt: dict[str, list] = {name: [] for name in names}
    every = np.concatenate(list(rows.values()))
    for label in np.unique(features.labels[every]):
        shuffled = rng.permutation(every[features.labels[every] == label])
        counts = [int((features.labels[rows[name]] == label).sum()) for name in names]
        for name, part in zip(names, np.split(shuffled, np.cumsum(counts)[:-1])):
            dealt[name].append(part)
    return Division(**{name: np.sort(np.concatenate(dealt[name])) for name in names})


def _fold(fold: int, features: InMemory, validates: bool) -> Division:
    """All clips outside the test split: one fold is tested on, the others train."""
    rows = np.concatenate([features.rows("train"), features.rows("validation")])
    folds, total = features.folds[rows], num_folds(features)
    validation = rows[folds == (fold + 1) % total] if validates else rows[:0]
    train = rows[(folds != fold) & ~np.isin(rows, validation)]
    return Division(train=train, validation=validation, test=rows[folds == fold])


def _fraction(name: DivisionName, features: InMemory, train: np.ndarray) -> np.ndarray:
    """Positions of a part of the training clips: of each class whole groups, in the seed's order, until it is enough.

    A larger fraction of one seed holds the smaller ones.
    """
    labels, groups = features.labels[train], features.groups[train]
    kept = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        wanted = name.fraction * len(positions)
        taken = 0
        for group in np.random.default_rng([name.seed, int(label)]).permutation(np.unique(groups[positions])):
            if taken >= wanted:
                break
            of_group = positions[groups[positions] == group]
            kept.append(of_group)
            taken += len(of_group)
    return np.sort(np.concatenate(kept))


def check_splits(directory: str, spec: DatasetSpec) -> None:
    """Raises DatasetError: no training or test split, or nothing to tell apart."""
    if len(spec.class_names) < 2:
        raise DatasetError(f"{directory} has one class, {spec.class_names[0]!r}: heads tell two or more apart")
    for split in ("train", "test"):
        if split not in spec.splits:
            raise DatasetError(f"{directory} has no {split} split: prepare the clips with one, then cache again")
