"""Changed copies of log-mels, so that heads on a frozen network see more than each clip once.

Gain, a shift in time, one mask over frequencies and one over time. Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le:
"SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition" (2019); masks are filled with the
clip's own mean. What is drawn for a clip follows from seed, variant and the clip's id alone, so that neither batches
nor order nor an interruption play a part.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """What is done to a log-mel.

    Attributes:
      seed: another seed, other variants.
      gain_db: louder or softer by up to so many dB.
      shift_fraction: moved in time by up to this part of the clip; silence moves in.
      mel_mask_fraction, time_mask_fraction: the widest mask, as a part of the mel bins and of the frames.
    """

    seed: int = 0
    gain_db: float = 6.0
    shift_fraction: float = 0.25
    mel_mask_fraction: float = 0.125
    time_mask_fraction: float = 0.2


def augment(
    log_mel: np.ndarray, settings: AugmentSettings, *, clip_id: str, variant: int, log_mel_settings: Mapping[str, Any]
) -> np.ndarray:
    """One variant of a clip's log-mel.

    Args:
      log_mel: float [n_mels, frames], natural logarithm.
      clip_id: of the clip, unique in its dataset.
      variant: from 1.
      log_mel_settings: the clip dataset's, for the power of its spectrum and its silence.
    Returns:
      float32 [n_mels, frames], nowhere below silence.
    """
    key = json.dumps([settings.seed, variant, clip_id]).encode()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest(), "big")))
    num_mels, num_frames = log_mel.shape
    # As it was stored, so that silence is found again.
    silence = np.float32(log_mel.dtype.type(math.log(log_mel_settings["log_floor"])))
    values = log_mel.astype(np.float32)

    gain = random.uniform(-settings.gain_db, settings.gain_db) * math.log(10) / 20 * log_mel_settings["power"]
    values = np.where(values > silence, np.maximum(values + np.float32(gain), silence), silence)

    most = int(settings.shift_fraction * num_frames)
    shift = int(random.integers(-most, most, endpoint=True))
    values = np.roll(values, shift, axis=1)
    values[:, : max(shift, 0)] = silence
    values[:, num_frames + min(shift, 0) :] = silence

    mean = values.mean()
    for axis, fraction in ((0, settings.mel_mask_fraction), (1, settings.time_mask_fraction)):
        size = values.shape[axis]
        width = int(random.integers(0, int(fraction * size), endpoint=True))
        start = int(random.integers(0, size - width, endpoint=True))
        np.moveaxis(values, axis, 0)[start : start + width] = mean
    return values
