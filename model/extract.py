"""Runs the frozen network over batches of clips, under any strategy. Arrays in, arrays out; no files."""

import collections
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from model.strategy import check_batch_size

_STEPS_AHEAD = 2  # so that a device has its next step while the last one's result is fetched


class Extractor:
    """The network on its devices, compiled for one batch size.

    Args:
      build: makes the network, log-mel [n, n_mels, frames] to features [n, ...]; called where its weights are to lie.
      strategy: as `strategy.choose` gives it.
      batch_size: clips in one step, over all replicas.
    Raises:
      ValueError: the replicas can't divide the batch.
    """

    def __init__(self, build: Callable[[], keras.Model], *, strategy: tf.distribute.Strategy, batch_size: int):
        check_batch_size(batch_size, strategy)
        self._strategy, self.batch_size = strategy, batch_size
        with strategy.scope():
            network = build()
        self._shape = (batch_size, *network.input_shape[1:])

        @tf.function
        def step(log_mel):
            return strategy.run(lambda share: network(share, training=False), args=(log_mel,))

        self._step = step

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Features of each batch of log-mels.

        Args:
          batches: float [n, n_mels, frames], n at most the batch size; shorter ones are padded, so that one shape is
            compiled.
        Yields:
          float32 [n, ...] features, in order.
        """
        running: collections.deque = collections.deque()
        for batch in batches:
            padded = np.zeros(self._shape, np.float32)
            padded[: len(batch)] = batch
            running.append((len(batch), self._step(self._shares(padded))))
            if len(running) > _STEPS_AHEAD:
                yield self._fetch(*running.popleft())
        while running:
            yield self._fetch(*running.popleft())

    def _shares(self, batch: np.ndarray):
        """The batch divided among the replicas, in their order."""
        per_replica = len(batch) // self._strategy.num_replicas_in_sync
        whole = tf.constant(batch)

        def share(context):
            start = context.replica_id_in_sync_group * per_replica
            return whole[start : start + per_replica]

        return self._strategy.experimental_distribute_values_from_function(share)

    def _fetch(self, num_clips: int, result) -> np.ndarray:
        shares = self._strategy.experimental_local_results(result)  # in the order of the replicas
        return np.concatenate([share.numpy() for share in shares])[:num_clips]
