"""How sure a result is: intervals over seeds and over test recordings, paired comparisons, calibration.

Two things vary a test accuracy. Other seeds train another head; other test recordings would ask other questions. An
interval over seeds says nothing of the second, however many seeds there are, so both are given. Recordings of one group
(takes of one note, say) are not independent and are drawn together.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy.stats

Interval = tuple[float, float]
_MOST_COUNTS = 4_000_000  # drawn at once: 32 MB


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, Interval | None]:
    """The mean, and Student's interval of it.

    Args:
      values: one for each seed, independent.
    Returns:
      mean and (low, high); None for the interval where a single value gives none. An accuracy's interval may reach
      beyond 0 or 1.
    Raises:
      ValueError: there is no value, one is not finite, or the confidence is not between 0 and 1.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"expected a list of finite numbers, at least one, got {values!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    mean = float(array.mean())
    if len(array) == 1:
        return mean, None
    half = float(_student(confidence, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, (mean - half, mean + half)


def group_bootstrap(
    correct: np.ndarray, groups: Sequence[Hashable], seed: int, num_samples: int = 10_000, confidence: float = 0.95
) -> Interval | None:
    """Interval of the accuracy over the test recordings that might have been drawn.

    Whole groups are drawn again, as many as there are, and the seeds' answers are averaged. The deviation of what comes
    out says how many independent clips the test set is worth, at most all it has, and the interval is the exact
    binomial one of so many (Korn and Graubard 1998). Unlike the drawn accuracies' percentiles it covers near 1 too,
    where few wrong answers say little of how many there might have been. Where every answer is right, or every one
    wrong, a group counts as one clip.

    Args:
      correct: bool [num_seeds, num_clips].
      groups: [num_clips], which group each clip belongs to.
    Returns:
      (low, high), or None for a single group, which says nothing of other groups.
    Raises:
      ValueError: shapes that don't fit, or no clip.
    """
    right, clips = _by_group(groups, _checked(correct, groups))
    num_groups = len(right)
    if num_groups < 2:
        return None
    total, num_clips = len(correct) * clips.sum(), int(clips.sum())
    accuracy = right.sum() / total
    if accuracy in (0, 1):
        worth = num_groups
    else:
        sums = _resampled_sums(np.stack([right, clips], axis=1), seed, num_samples)
        drawn = sums[:, 0] / (len(correct) * sums[:, 1])
        variance = drawn.var() * num_groups / (num_groups - 1)
        worth = min(accuracy * (1 - accuracy) / variance, num_clips) if variance else num_clips
        # The variance is itself uncertain where groups are few.
        worth *= (_student(confidence, num_clips - 1) / _student(confidence, num_groups - 1)) ** 2
    tail, num_right, num_wrong = (1 - confidence) / 2, accuracy * worth, (1 - accuracy) * worth
    low = scipy.stats.beta.ppf(tail, num_right, num_wrong + 1) if num_right else 0.0
    high = scipy.stats.beta.ppf(1 - tail, num_right + 1, num_wrong) if num_wrong else 1.0
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Paired:
    """How much more accurate one head is than another on the same test clips.

    Attributes:
      difference: accuracy of the first less that of the second, seeds averaged.
      interval: of the difference, 95 % over the test recordings drawn; None where all groups differ alike (two heads
        that answer the same, or a single group), which says nothing of other groups.
      seed_interval: of the difference, 95 % over seeds; None for a single seed, or unequal numbers of them.
      p_value: two-sided: how often a difference as large comes about if each group's answers were exchanged between the
        two by a coin's toss.
    """

    difference: float
    interval: Interval | None
    seed_interval: Interval | None
    p_value: float


def paired(
    correct_a: np.ndarray, correct_b: np.ndarray, groups: Sequence[Hashable], seed: int, num_samples: int = 10_000
) -> Paired:
    """Compare two heads, or a head and a baseline, clip by clip.

    Args:
      correct_a, correct_b: bool [num_seeds, num_clips], of the same clips; the numbers of seeds may differ, and where
        they are equal, the seeds of a row belong together.
      groups: [num_clips], which group each clip belongs to.
      seed: of the resampling and of the exchanges, `num_samples` of each.
    Raises:
      ValueError: shapes that don't fit, or no clip.
    """
    correct_a, correct_b = _checked(correct_a, groups), _checked(correct_b, groups)
    num_a, num_b = len(correct_a), len(correct_b)
    # Whole numbers, num_a * num_b times the difference, so that equal sums compare as equal.
    both = num_b * correct_a.sum(axis=0, keepdims=True) - num_a * correct_b.sum(axis=0, keepdims=True)
    more, clips = _by_group(groups, both)
    scale = num_a * num_b
    interval = None
    if len(np.unique(more / clips)) > 1:
        sums = _resampled_sums(np.stack([more, clips], axis=1), seed, num_samples)
        interval = _percentiles(sums[:, 0] / (scale * sums[:, 1]), len(more))
    seed_interval = None
    if num_a == num_b:
        seed_interval = mean_interval(correct_a.mean(axis=1) - correct_b.mean(axis=1))[1]
    return Paired(
        difference=float(more.sum() / (scale * clips.sum())),
        interval=interval,
        seed_interval=seed_interval,
        p_value=_sign_flip_p_value(more, seed, num_samples),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: rejecting those below 0.05 errs once in 20 families at most.

    Raises:
      ValueError: a p-value is not between 0 and 1.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"p-values must be between 0 and 1, got {list(p_values)!r}")
    order = np.argsort(array, kind="stable")
    steps = np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps * array[order]), 1.0)
    return adjusted.tolist()


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """How far the answers' probabilities are from how often they are right (Guo et al. 2017), from 0 to 1.

    The clips are divided by the probability of their answer into bins of equal width, (0, 1/15] to (14/15, 1]; the
    result is the mean over clips of |accuracy - mean probability| of their bin.

    Args:
      probabilities: [num_clips, num_classes], each from 0 to 1.
      labels: int [num_clips].
    Raises:
      ValueError: shapes that don't fit, no clip, or a value out of range.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            "expected probabilities [clips, classes] and labels [clips] of at least one clip, got "
            f"{list(probabilities.shape)} and {list(labels.shape)}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("probabilities must be from 0 to 1")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins!r}")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def per_class(confusion: np.ndarray) -> list[dict[str, float | int | None]]:
    """Precision, recall and F1 of each class.

    Args:
      confusion: counts [num_classes, num_classes], rows the truth, columns the answers.
    Returns:
      for each class {"precision", "recall", "f1", "num_clips"}; None where there is nothing to divide by: precision of
      a class that was never answered, recall of one without clips, F1 of one with neither.
    Raises:
      ValueError: not a square of counts.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or (confusion < 0).any():
        raise ValueError(f"expected a square matrix of counts, got shape {list(confusion.shape)}")
    right, clips, answers = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "precision": _ratio(right[label], answers[label]),
            "recall": _ratio(right[label], clips[label]),
            "f1": _ratio(2 * right[label], answers[label] + clips[label]),
            "num_clips": int(clips[label]),
        }
        for label in range(len(confusion))
    ]


def macro_f1(confusion: np.ndarray) -> float:
    """The mean of the classes' F1, each counting the same; classes with neither clips nor answers are left out.

    Raises:
      ValueError: not a square of counts, or no count at all.
    """
    scores = [row["f1"] for row in per_class(confusion) if row["f1"] is not None]
    if not scores:
        raise ValueError("the confusion matrix counts no clip")
    return float(np.mean(scores))


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _checked(correct: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.ndim != 2 or correct.dtype != bool or not correct.size or correct.shape[1] != len(groups):
        raise ValueError(
            f"expected bool [seeds, clips] of at least one clip, and a group for each, got {correct.dtype} "
            f"{list(correct.shape)} and {len(groups)} groups"
        )
    return correct


def _by_group(groups: Sequence[Hashable], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `values` [rows, clips] by group, and clips by group: two int64 [num_groups]."""
    numbers: dict[Hashable, int] = {}
    numbered = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums = np.zeros(len(numbers), np.int64)
    np.add.at(sums, numbered, values.sum(axis=0))
    return sums, np.bincount(numbered)


def _resampled_sums(rows: np.ndarray, seed: int, num_samples: int) -> np.ndarray:
    """Sums int64 [num_samples, columns] of as many rows as there are, drawn with replacement.

    Equal rows are drawn together, by counts: the same distribution, and quick for any number of groups.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng([seed, 0])
    block = max(1, _MOST_COUNTS // len(kinds))
    return np.concatenate(
        [
            rng.multinomial(len(rows), counts / len(rows), size=min(block, num_samples - start)) @ kinds
            for start in range(0, num_samples, block)
        ]
    )


def _percentiles(samples: np.ndarray, num_groups: int, confidence: float = 0.95) -> Interval:
    """Hesterberg's expanded percentiles (2015): the plain ones are too narrow for few groups."""
    tail = scipy.stats.norm.sf(_student(confidence, num_groups - 1) * math.sqrt(num_groups / (num_groups - 1)))
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _student(confidence: float, degrees: int) -> float:
    return float(scipy.stats.t.ppf((1 + confidence) / 2, degrees))


def _sign_flip_p_value(differences: np.ndarray, seed: int, num_samples: int) -> float:
    """Two-sided p-value of the sum of the groups' differences (whole numbers) under random signs."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    rng = np.random.default_rng([seed, 1])
    sums = np.zeros(num_samples, np.int64)
    for size, count in zip(sizes, counts):  # the signs of equal sizes add up to a binomial number
        sums += size * (2 * rng.binomial(count, 0.5, size=num_samples) - count)
    # The signs as they are belong to those that may come about, so that no p-value is 0.
    return float((1 + np.sum(np.abs(sums) >= abs(differences.sum()))) / (1 + num_samples))
