"""Are stored features those of the network? Some are computed anew by another way, and distances measured."""

import numpy as np

from model import backbone as backbones
from model.frozen_network import BFLOAT16, FLOAT32, FrozenNetwork, set_compute_precision

# Relative RMS allowed, by what rounds most. Measured with calibrated random weights on 24 of 1,301 real notes, in
# batches of 64 on a CPU: 1.1e-6 where all is float32, 2.1e-4 stored as float16 (rounding alone gives at most 2.8e-4),
# 0.017 (pooled 0.007) in bfloat16, and about 1 by training mode. The first has room for a GPU's other ways to convolve;
# each is well below what the next coarser arithmetic makes.
_THRESHOLDS = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 5e-2}


def threshold(compute_precision: str, stored_dtype: str) -> float:
    """The largest relative RMS difference at which stored features count as the network's."""
    return _THRESHOLDS[BFLOAT16 if compute_precision == BFLOAT16 else stored_dtype]


def measure(network: FrozenNetwork, log_mels: np.ndarray, stored: np.ndarray) -> dict[str, float]:
    """How far stored features are from those of a network built anew.

    It runs in float32, in inference mode, without strategy or compilation, one clip at a time.

    Args:
      network: whose weights are loaded, or made, and checked anew.
      log_mels: float [n, n_mels, frames], n at least 1.
      stored: their features as stored, float [n, *network.feature_shape].
    Returns:
      num_clips; max_abs, relative_rms: of stored against new features; and, as a scale for these, relative RMS
      differences from the new features that would be had with other arithmetic: bfloat16_relative_rms, and
      training_mode_relative_rms, with the batch norm of these clips alone instead of the stored statistics.
      Three digits each.
    Raises:
      WeightsError: the weights can't be had, or are other ones now.
    """
    backbone = network.build_backbone()
    backbones.forbid_tensor_float_32()
    to_image = backbones.LateImage(network.image, dtype="float32")
    images = to_image(np.asarray(log_mels, np.float32))

    def features(some, *, training: bool = False) -> np.ndarray:
        maps = np.asarray(backbone(some, training=training)).astype(np.float32)
        return maps.mean(axis=(1, 2)) if network.pooled else maps

    new = np.concatenate([features(images[place : place + 1]) for place in range(len(images))])
    set_compute_precision(backbone, BFLOAT16)
    in_bfloat16 = features(images)
    set_compute_precision(backbone, FLOAT32)
    in_training = features(images, training=True)  # last: it moves the statistics
    found = {
        "max_abs": float(np.abs(stored.astype(np.float64) - new).max()),
        "relative_rms": _relative_rms(stored, new),
        "bfloat16_relative_rms": _relative_rms(in_bfloat16, new),
        "training_mode_relative_rms": _relative_rms(in_training, new),
    }
    return {"num_clips": len(new), **{name: float(f"{value:.3g}") for name, value in found.items()}}


def _relative_rms(values: np.ndarray, expected: np.ndarray) -> float:
    expected = expected.astype(np.float64)
    return float(np.sqrt(np.mean((values - expected) ** 2) / np.mean(expected**2)))
