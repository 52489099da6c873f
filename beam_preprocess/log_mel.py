"""Log-mel images as librosa makes them, with window, filters and buffers made once instead of for each clip."""

import dataclasses

import numpy as np
import scipy.fft
import scipy.sparse

from beam_preprocess.settings import LogMelSettings


@dataclasses.dataclass(frozen=True)
class Filters:
    """librosa's window float64 [n_fft] and mel filters, sparse [n_mels, n_fft // 2 + 1], for some settings.

    Made where a job is started and sent to its workers, which then start a second sooner: they need not import librosa.
    """

    window: np.ndarray
    mel: scipy.sparse.csr_matrix

    @classmethod
    def of(cls, settings: LogMelSettings) -> "Filters":
        import librosa.filters

        mel = librosa.filters.mel(
            sr=settings.sample_rate_hz,
            n_fft=settings.n_fft,
            n_mels=settings.n_mels,
            fmin=settings.fmin_hz,
            fmax=settings.fmax_hz,
        )
        # A mel filter covers few of the bins: as a sparse matrix, applying them costs a fifth.
        return cls(
            librosa.filters.get_window("hann", settings.n_fft, fftbins=True),
            scipy.sparse.csr_matrix(mel, dtype=np.float64),
        )


class LogMel:
    """Turns one mono clip into its log-mel image. Not to be shared between threads: it works in its own buffers.

    Equal to `np.log(np.maximum(librosa.feature.melspectrogram(...), log_floor))` within 1e-4. The spectrum is
    McFee et al., "librosa: Audio and music signal analysis in Python" (2015), `melspectrogram` with its defaults:
    periodic Hann window, centred frames, zeros beyond the edges, Slaney mel scale and normalisation.
    """

    def __init__(self, settings: LogMelSettings, filters: Filters | None = None):
        self.settings = settings
        self._filters = filters or Filters.of(settings)
        num_frames = settings.shape[1]
        # In float64, as librosa's: a float32 transform's rounding shows beside loud partials, where 1e-9 is left.
        self._padded = np.zeros(settings.num_samples + 2 * (settings.n_fft // 2))
        self._overlapping = np.lib.stride_tricks.sliding_window_view(self._padded, settings.n_fft)[
            :: settings.hop_length
        ]
        self._frames = np.empty((num_frames, settings.n_fft))
        self._power = np.empty((num_frames, settings.n_fft // 2 + 1))
        self._square = np.empty_like(self._power)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 [n] at `sample_rate_hz` to float32 [n_mels, frames], natural logarithm.

        Takes the first `num_samples`; zeros follow where there are fewer.

        Raises:
          ValueError: not one channel.
        """
        settings = self.settings
        if samples.ndim != 1:
            raise ValueError(f"expected one channel, [n] samples, got {list(samples.shape)}")
        samples = samples[: settings.num_samples]
        start = settings.n_fft // 2
        self._padded[start : start + len(samples)] = samples
        self._padded[start + len(samples) :] = 0.0
        np.multiply(self._overlapping, self._filters.window, out=self._frames)
        spectrum = scipy.fft.rfft(self._frames, axis=1)  # NumPy's would keep other threads waiting
        np.square(spectrum.real, out=self._power)
        np.square(spectrum.imag, out=self._square)
        self._power += self._square
        if settings.power != 2.0:
            self._power **= settings.power / 2
        mel = self._filters.mel @ self._power.T
        return np.log(np.maximum(mel, settings.log_floor)).astype(np.float32)
