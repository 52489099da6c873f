"""Features made ready for training heads: pooled, standardised and, where it saves work, multiplied with each other.

Everything here is done once for all heads that share it.
"""

import dataclasses
import math

import numpy as np

from model.standardise import Standardiser

TRAIN, VALIDATION, TEST, OTHER = PARTS = ("train", "validation", "test", "other")
_ROWS_AT_ONCE = 1024
_RUN_BYTES = 1 << 30
_MOST_BYTES_HELD = 1 << 30  # of a part's standardised values, beside the training clips'


@dataclasses.dataclass(frozen=True)
class Division:
    """Which clips train a head, which choose its epoch, which test it: row numbers into the features, int [n] each.

    Attributes:
      train: in stored order; where clips have augmented variants, all clips, then all first variants in the same order,
        and so on.
      validation, test: may be empty.
      num_variants: augmented variants of each training clip beside itself.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    num_variants: int = 0

    @property
    def num_train_clips(self) -> int:
        return len(self.train) // (1 + self.num_variants)


@dataclasses.dataclass(frozen=True)
class LabelledFeatures:
    """Some rows, int [n], of features [clips, ...] of any float type, in memory or mapped from a file, and labels."""

    features: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


class HeadInputs:
    """The inputs of all heads that are trained on one division of the features, by one pooling and standardisation.

    Where there are fewer training clips than values, training works in their span (`SpanLayer`), and the inner products
    of the clips of each part with the training clips are made here: `gram`, by part. A part too large to be held in
    memory is not in it; there is none at all where there are more training clips than values.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        division: Division,
        *,
        num_classes: int,
        pooling: str,
        standardise: bool,
        other: LabelledFeatures | None = None,
    ):
        """Prepare.

        Args:
          features: [clips, ...] of any shape and float type, in memory or mapped from a file.
          labels: int [clips].
          pooling: "none", or "average" over all axes but the first and the last.
          other: another collection to test on: the part "other", which is empty without.
        Raises:
          ValueError: a feature is not finite, or a class has no training clip.
        """
        missing = sorted(set(range(num_classes)) - set(np.unique(labels[division.train]).tolist()))
        if missing:
            raise ValueError(f"class number {missing[0]} (counting from 0) has no training clip")
        self.feature_shape = features.shape[1:]
        self.num_classes = num_classes
        self.pooling = pooling
        self.division = division
        own = {part: getattr(division, part) for part in (TRAIN, VALIDATION, TEST)}
        sources = {part: LabelledFeatures(features, labels, rows) for part, rows in own.items()}
        sources[OTHER] = other or LabelledFeatures(features, labels, np.empty(0, int))
        self._rows = {part: source.rows for part, source in sources.items()}
        self._features = {part: source.features for part, source in sources.items()}
        self.labels = {part: source.labels[source.rows] for part, source in sources.items()}
        for part in PARTS:
            self._check_finite(part)
        self.num_values = self._pooled(features[:1]).shape[1]
        self.standardiser = self._fit_standardiser() if standardise else Standardiser.identity(self.num_values)
        self.in_span = len(division.train) < self.num_values
        self._values, self.gram = {}, {}
        if self.in_span:
            held = [part for part in PARTS if part == TRAIN or self._num_bytes(part) <= _MOST_BYTES_HELD]
            self._values = {part: self._standardised(part) for part in held}
            train = np.ascontiguousarray(self._values[TRAIN].T)
            self.gram = {part: values @ train for part, values in self._values.items()}

    def values(self, part: str, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float32 [n, num_values] of some clips of a part."""
        if part in self._values:
            return self._values[part][positions]
        return self._standardised(part, positions)

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """Positions in the train part of one epoch: each clip once, as itself or as one of its variants.

        Drawn over all clips where they take less than a GiB; else clips change places within runs of a GiB, and the
        runs change places, so that features mapped from a disk are read run by run. Stored clips are shuffled already.
        """
        num_clips = self.division.num_train_clips
        run = max(1, _RUN_BYTES // self._features[TRAIN][:1].nbytes)
        starts = rng.permutation(-(-num_clips // run)) * run
        order = np.concatenate([start + rng.permutation(min(run, num_clips - start)) for start in starts])
        if self.division.num_variants:
            order += num_clips * rng.integers(0, 1 + self.division.num_variants, num_clips)
        return order

    def project(self, part: str, kernel: np.ndarray) -> np.ndarray:
        """values(part) @ kernel: float32 [n, units], without having all values in memory at once."""
        starts = range(0, len(self._rows[part]), _ROWS_AT_ONCE)
        pieces = [self.values(part, slice(start, start + _ROWS_AT_ONCE)) @ kernel for start in starts]
        return np.concatenate([np.empty((0, kernel.shape[1]), np.float32), *pieces])

    def _num_bytes(self, part: str) -> int:
        return 4 * self.num_values * len(self._rows[part])

    def _pooled(self, features: np.ndarray) -> np.ndarray:
        if self.pooling == "average" and features.ndim > 2:
            positions = tuple(range(1, features.ndim - 1))
            return features.mean(axis=positions, dtype=np.float32)
        return features.reshape(len(features), math.prod(features.shape[1:])).astype(np.float32)

    def _standardised(self, part: str, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        return self.standardiser(self._pooled(self._features[part][self._rows[part][positions]]))

    def _fit_standardiser(self) -> Standardiser:
        features, rows = self._features[TRAIN], self._rows[TRAIN]
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        return Standardiser.fit(self._pooled(features[rows[start : start + _ROWS_AT_ONCE]]) for start in starts)

    def _check_finite(self, part: str) -> None:
        features, rows = self._features[part], self._rows[part]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            bad = ~np.isfinite(features[some]).all(axis=tuple(range(1, features.ndim)))
            if bad.any():
                raise ValueError(
                    f"the features of clip {some[bad][0]} ({part}) are not finite numbers: make the dataset again"
                )
