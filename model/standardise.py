"""Standardising features with the training clips' statistics."""

import dataclasses
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """(x - mean) / std, value by value; mean and std float32 [num_values] of the training clips."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, blocks: Iterable[np.ndarray]) -> "Standardiser":
        """From training features in blocks [clips, num_values]. A value that never varies is only centred.

        Mean and variance are merged block by block (Chan, Golub, LeVeque 1979), in double precision.
        """
        count, mean, square = 0, 0.0, 0.0
        for block in blocks:
            values = block.astype(np.float64)
            block_mean = values.mean(axis=0)
            shift = block_mean - mean
            total = count + len(values)
            square = square + ((values - block_mean) ** 2).sum(axis=0) + shift**2 * (count * len(values) / total)
            mean, count = mean + shift * (len(values) / total), total
        std = np.sqrt(square / count)
        return cls(mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32))

    @classmethod
    def identity(cls, num_values: int) -> "Standardiser":
        return cls(np.zeros(num_values, np.float32), np.ones(num_values, np.float32))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """float32 [n, num_values]."""
        result = values.astype(np.float32)
        result -= self.mean
        result /= self.std
        return result
