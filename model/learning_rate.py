"""The learning rate at every batch of a training, by rule."""

import numpy as np

from model.head_settings import HeadSettings


def learning_rates(settings: HeadSettings, batches_per_epoch: int) -> np.ndarray:
    """float64 [epochs * batches_per_epoch]: the rate that batch t is trained with, t counting from 0.

    Equal to keras.optimizers.schedules InverseTimeDecay(learning_rate, 1, decay_rate) and CosineDecay with warm-up.
    """
    num_batches = settings.epochs * batches_per_epoch
    t = np.arange(num_batches, dtype=np.float64)
    if settings.learning_rate_rule == "inverse_time":
        return settings.learning_rate / (1.0 + settings.decay_rate * t)
    if settings.learning_rate_rule == "constant":
        return np.full(num_batches, float(settings.learning_rate))
    warmup = round(settings.warmup_epochs * batches_per_epoch)
    fall = 0.5 * (1.0 + np.cos(np.pi * np.maximum(t - warmup, 0.0) / (num_batches - warmup)))
    return settings.learning_rate * np.where(t < warmup, t / max(warmup, 1), fall)
