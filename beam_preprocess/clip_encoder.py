"""From one recording to its encoded clips: windows, levels, resampling, log-mel, record. What a Beam worker repeats."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from beam_preprocess import audio
from beam_preprocess.log_mel import Filters, LogMel
from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from tfdata import schema
from tfdata.spec import ArraySpec

_FULL_SCALE = 0.999  # 16-bit and lossy files end a little below 1
_MAX_PEAK = 1e9  # 1 is full scale; files of floats may hold more, but not anything
_CLIPPED_RUN = 3  # so many samples in a row at full scale are no peak of a wave


def array_spec(settings: PrepareSettings) -> ArraySpec:
    """The array of a clip example."""
    return ArraySpec(name="log_mel", shape=settings.log_mel.shape, dtype=settings.precision)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A clip's serialised example, and its index line: what planning, splitting and statistics need of it."""

    record: bytes
    line: dict[str, Any]


class ClipEncoder:
    """Turns recordings into encoded clips. One for each thread: it works in its own buffers."""

    def __init__(self, settings: PrepareSettings, class_names: tuple[str, ...], filters: Filters | None = None):
        self._settings = settings
        self._array = array_spec(settings)
        self._class_names = class_names
        self._labels = {name: index for index, name in enumerate(class_names)}
        self._log_mel = LogMel(settings.log_mel, filters)

    def __call__(self, recording: Recording) -> Iterator[Encoded | None]:
        """The clips of a recording in order; None for each window left out as silence.

        Raises:
          Reject: nothing of the recording can be used; clips yielded before are void.
        """
        if recording.label is None:
            raise audio.Reject("list", "stands outside a class folder")
        wanted = self._settings.windows
        clip_s = self._settings.log_mel.clip_s
        several = wanted.max_windows != 1
        held_back = None  # of a recording that is digital silence throughout, the first window is its clip
        num_windows = num_clips = 0
        for window in audio.windows(
            recording.path, clip_s=clip_s, hop_s=wanted.hop_s or clip_s, max_windows=wanted.max_windows
        ):
            num_windows += 1
            encoded, level_dbfs = self._encode(recording, window)
            if wanted.silence_dbfs is not None and level_dbfs <= wanted.silence_dbfs:
                yield None
            elif several and level_dbfs == -math.inf:
                if held_back:
                    yield None
                held_back = held_back or encoded
            else:
                num_clips += 1
                yield encoded
        if held_back:
            yield None if num_clips else held_back
        elif not num_clips:
            raise audio.Reject(
                "silence",
                f"at or below --silence_dbfs={wanted.silence_dbfs:g} in all of its {num_windows} "
                f"window{'s' * (num_windows > 1)}",
            )

    def _encode(self, recording: Recording, window: audio.Window) -> tuple[Encoded, float]:
        """The clip and its level in dBFS."""
        settings = self._settings.log_mel
        samples, rate_hz = window.samples, window.sample_rate_hz
        peak = max(float(samples.max()), -float(samples.min()))
        if not math.isfinite(peak):
            raise audio.Reject("decode", "samples that are not finite numbers (NaN or infinity)")
        if peak > _MAX_PEAK:
            raise audio.Reject("decode", f"samples up to {peak:.3g}, where 1 is full scale: no audio")
        # Not np.dot: for so many values BLAS starts threads, which get in the way of the other workers.
        rms = math.sqrt(float(np.einsum("i,i->", samples, samples)) / len(samples))
        resampled = audio.resample(samples, from_hz=rate_hz, to_hz=settings.sample_rate_hz)
        image = self._log_mel(resampled).astype(self._array.dtype)
        values = image.astype(np.float64)
        content = xxhash.xxh3_128(str(rate_hz).encode())
        content.update(samples)
        clip = schema.Clip(
            recording=recording.name,
            start_s=window.start_s,
            # As the record stores them, so that they are the same when read back from it.
            duration_s=_as_stored(len(samples) / rate_hz),
            label=self._labels[recording.label],
            group=recording.group,
            content_hash=content.hexdigest(),
            peak=_as_stored(peak),
            rms=_as_stored(rms),
            num_clipped=_num_clipped(samples) if peak >= _FULL_SCALE else 0,
            metadata=recording.metadata,
        )
        level_dbfs = 20 * math.log10(rms) if rms else -math.inf
        line = index_line(clip, values, self._class_names, recording.split)
        return Encoded(schema.encode_clip(clip, image, self._array), line), level_dbfs


def index_line(
    clip: schema.Clip, values: np.ndarray, class_names: tuple[str, ...], split: str | None
) -> dict[str, Any]:
    """What planning needs of a clip; made from its record, it is the same as made from its recording.

    Args:
      values: the log-mel as stored, float64.
      split: the manifest's wish, or None.
    """
    values = values.ravel()
    return {
        "id": clip.id,
        "recording": clip.recording,
        "label": class_names[clip.label],
        "group": clip.group,
        "split": split,
        "content_hash": clip.content_hash,
        "duration_s": clip.duration_s,
        "peak": clip.peak,
        "rms": clip.rms,
        "num_clipped": clip.num_clipped,
        "min": float(values.min()),
        "max": float(values.max()),
        "sum": float(values.sum()),
        "sum_of_squares": float(values @ values),
    }


def _as_stored(value: float) -> float:
    return float(np.float32(value))


def _num_clipped(samples: np.ndarray) -> int:
    """Samples that stand in runs at full scale."""
    full = np.flatnonzero(np.diff(np.concatenate([[False], np.abs(samples) >= _FULL_SCALE, [False]]).astype(np.int8)))
    runs = full[1::2] - full[::2]
    return int(runs[runs >= _CLIPPED_RUN].sum())
