"""Log-mel images as librosa makes them, with window and filters computed once instead of for each clip."""

import librosa.filters
import numpy as np

from beam_preprocess.settings import LogMelSettings


class LogMel:
    """Turns one mono clip into its log-mel image.

    Equal to `np.log(np.maximum(librosa.feature.melspectrogram(...), log_floor))` within 1e-4. The spectrum is
    McFee et al., "librosa: Audio and music signal analysis in Python" (2015), `melspectrogram` with its defaults:
    periodic Hann window, centred frames, zeros beyond the edges, Slaney mel scale and normalisation.
    """

    def __init__(self, settings: LogMelSettings):
        self.settings = settings
        # In float64, as librosa's: a float32 transform's rounding shows beside loud partials, where 1e-9 is left.
        self._window = librosa.filters.get_window("hann", settings.n_fft, fftbins=True)
        self._filters = librosa.filters.mel(
            sr=settings.sample_rate_hz,
            n_fft=settings.n_fft,
            n_mels=settings.n_mels,
            fmin=settings.fmin_hz,
            fmax=settings.fmax_hz,
        ).astype(np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 [num_samples] at `sample_rate_hz` to float32 [n_mels, frames], natural logarithm.

        Raises:
          ValueError: not [num_samples].
        """
        settings = self.settings
        if samples.shape != (settings.num_samples,):
            raise ValueError(f"expected [{settings.num_samples}] samples, got {list(samples.shape)}")
        padded = np.pad(samples.astype(np.float32, copy=False), settings.n_fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop_length]
        spectrum = np.abs(np.fft.rfft(frames * self._window, axis=1).astype(np.complex64))
        if settings.power != 1.0:
            spectrum **= settings.power
        return np.log(np.maximum(self._filters @ spectrum.T, np.float32(settings.log_floor)))
