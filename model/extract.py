"""Runs the frozen network over batches of clips. Arrays in, arrays out; no files."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf


def extract(extractor: keras.Model, batches: Iterable[np.ndarray], *, batch_size: int) -> Iterator[np.ndarray]:
    """Features of each batch of log-mels.

    Args:
      extractor: as `FrozenNetwork.build` makes it.
      batches: float [n, n_mels, frames], n at most batch_size; shorter ones are padded, so that one shape is compiled.
    Yields:
      float32 [n, ...] features, in order.
    """

    @tf.function(input_signature=[tf.TensorSpec((batch_size, *extractor.input_shape[1:]), tf.float32)])
    def step(log_mel):
        return extractor(log_mel, training=False)

    for batch in batches:
        padded = np.zeros((batch_size, *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        features = step(padded).numpy()[: len(batch)]
        yield features
