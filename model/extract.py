"""Runs the frozen network over batches of clips. Arrays in, arrays out; no files."""

from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf


def extract(extractor: keras.Model, batches: Iterable[np.ndarray], *, batch_size: int) -> Iterator[np.ndarray]:
    """Features of each batch of log-mels.

    Args:
      extractor: as `FrozenNetwork.build` makes it.
      batches: float [n, n_mels, frames], n at most batch_size.
    Yields:
      float32 [n, ...] features, in order.
    """
    yield from map(batch_step(extractor, batch_size), batches)


def batch_step(extractor: keras.Model, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The network for batches of up to batch_size clips; shorter ones are padded, so that one shape is compiled."""

    @tf.function(input_signature=[tf.TensorSpec((batch_size, *extractor.input_shape[1:]), tf.float32)])
    def step(log_mel):
        return extractor(log_mel, training=False)

    def features(batch: np.ndarray) -> np.ndarray:
        padded = np.zeros((batch_size, *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        return step(padded).numpy()[: len(batch)]

    return features
