"""The settings of a prepare job, checked when they are made and stored whole in the dataset's spec."""

import dataclasses
import math

from tfdata.spec import DatasetError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise DatasetError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMelSettings:
    """From audio to a log-mel image; the defaults are the source system's (128 bins x 12 frames).

    Attributes:
      sample_rate_hz: rate after resampling.
      clip_s: seconds of a clip; a shorter recording is padded with zeros.
      n_fft, hop_length: samples; Hann window, frames centred, zeros beyond the edges (librosa's default).
      n_mels, fmin_hz, fmax_hz: Slaney mel filters (librosa's default) from fmin_hz to fmax_hz.
      power: exponent of the magnitude: 2.0 power (librosa's default), 1.0 magnitude.
      log_floor: smallest value before the natural logarithm, so that silence stays finite.
    """

    sample_rate_hz: int = 12_000
    clip_s: float = 1.0
    n_fft: int = 2048
    hop_length: int = 1024
    n_mels: int = 128
    fmin_hz: float = 0.0
    fmax_hz: float = 6000.0
    power: float = 2.0
    log_floor: float = 1e-10

    def __post_init__(self):
        for name in ("sample_rate_hz", "clip_s", "n_fft", "hop_length", "n_mels", "power", "log_floor"):
            value = getattr(self, name)
            _check(0 < value < math.inf, f"--{name} must be above 0 and finite, got {value}")
        _check(
            0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2,
            f"the mel range must lie within 0 and half the sample rate ({self.sample_rate_hz / 2:g} Hz), "
            f"got {self.fmin_hz:g} to {self.fmax_hz:g} Hz",
        )
        _check(self.num_samples >= 1, f"--clip_s={self.clip_s} is less than one sample at {self.sample_rate_hz} Hz")

    @property
    def num_samples(self) -> int:
        return round(self.clip_s * self.sample_rate_hz)

    @property
    def shape(self) -> tuple[int, int]:
        """[n_mels, frames] of one clip."""
        padded = self.num_samples + 2 * (self.n_fft // 2)
        return self.n_mels, 1 + (padded - self.n_fft) // self.hop_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Which parts of a recording become clips.

    Attributes:
      max_windows: the first so many; None for all.
      hop_s: seconds from the start of a clip to the start of the next; None for the clip's length.
      silence_dbfs: clips whose root mean square amplitude is at or below this are left out and counted; None keeps
        them. Of a recording that gives several clips, those of digital silence are always left out.
    """

    max_windows: int | None = 1
    hop_s: float | None = None
    silence_dbfs: float | None = None

    def __post_init__(self):
        _check(
            self.max_windows is None or self.max_windows >= 1,
            f"--windows must be first, all, or a number from 1, got {self.max_windows}",
        )
        _check(
            self.hop_s is None or 0.001 <= self.hop_s < math.inf,
            f"--hop_s must be at least 0.001 and finite, got {self.hop_s}",
        )
        _check(
            self.silence_dbfs is None or -200 <= self.silence_dbfs <= 0,
            f"--silence_dbfs must be within -200 and 0 (full scale), got {self.silence_dbfs}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How clips are divided.

    Attributes:
      method: "exact": counts as near the fractions as whole groups allow. "stable": each group's split follows from a
        hash of its name alone, so that new recordings never move an old one; counts are near the fractions by chance.
      test_fraction: of all clips.
      validation_fraction: of what is left for training after the test clips are taken (0.2 and 0.2 give 64/16/20 %).
      folds: for cross-validation, all clips outside the test split are divided into so many folds; 0 for none.
      seed: another seed, another division.
    """

    method: str = "exact"
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    folds: int = 0
    seed: int = 0

    def __post_init__(self):
        _check(self.method in ("exact", "stable"), f"--split must be exact or stable, got {self.method!r}")
        for name in ("test_fraction", "validation_fraction"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"--{name} must be at least 0 and below 1, got {value:g}")
        _check(self.folds == 0 or self.folds >= 2, f"--folds must be 0 (none) or at least 2, got {self.folds}")

    @property
    def fractions(self) -> dict[str, float]:
        """Share of all clips by split; a split of share 0 is not made."""
        rest = 1 - self.test_fraction
        shares = {
            "train": rest * (1 - self.validation_fraction),
            "validation": rest * self.validation_fraction,
            "test": self.test_fraction,
        }
        return {name: share for name, share in shares.items() if share > 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """All that decides a clip dataset's bytes, beside the recordings themselves.

    Attributes:
      group: the manifest column whose recordings stay together, or None.
      classes: the labels allowed, in label order; () takes all that occur, sorted.
      precision: float16 or float32.
      num_shards: files for each split, or 0 for 8, more where they would exceed 64 MiB.
    """

    log_mel: LogMelSettings = LogMelSettings()
    windows: WindowSettings = WindowSettings()
    split: SplitSettings = SplitSettings()
    group: str | None = None
    classes: tuple[str, ...] = ()
    precision: str = "float16"
    num_shards: int = 0

    def __post_init__(self):
        _check(self.num_shards >= 0, f"--num_shards must be at least 0, got {self.num_shards}")
