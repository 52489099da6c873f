"""Standardising features with the training split's statistics, and the span they live in."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """(x - mean) / std, value by value; mean and std float32 [num_values] of the training clips."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> "Standardiser":
        """From training features [clips, num_values]. A value that never varies is only centred."""
        std = values.std(axis=0, dtype=np.float64)
        return cls(
            values.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)
        )

    @classmethod
    def identity(cls, num_values: int) -> "Standardiser":
        return cls(np.zeros(num_values, np.float32), np.ones(num_values, np.float32))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float32) - self.mean) / self.std


def span_basis(values: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis [num_values, clips] of the span of training features, or None where it would save nothing.

    Gradient descent never leaves start + span: the gradient of a first layer's kernel is a sum of its inputs. And with
    momentum it is equivariant to a rotation of the inputs, so training on `values @ basis` takes the same way as
    training on `values`, at clips / num_values of the arithmetic.
    """
    num_clips, num_values = values.shape
    # The decomposition costs as much as some epochs, so it must save a good part of each.
    return np.linalg.qr(values.T)[0] if 2 * num_clips < num_values else None
