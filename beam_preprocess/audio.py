"""From an audio file of any format, rate, depth and channel count to the mono samples of one clip."""

import dataclasses
import hashlib
import os
import shutil
import tempfile

import numpy as np
import soundfile
import soxr

from tfdata import storage

_MAX_SAMPLE_RATE_HZ = 1_000_000


class Reject(Exception):
    """A recording that can't be used: the stage that refused it ("read", "decode", "resample", ...) and why."""

    def __init__(self, stage: str, reason: str):
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Audio:
    """Mono audio: float32 samples [n] in about [-1, 1], their rate, and sha256 of both, before any resampling."""

    samples: np.ndarray
    sample_rate_hz: int
    content_hash: str


def decode(path: str, *, duration_s: float) -> Audio:
    """Decode the first `duration_s` seconds of a file, mixed down to mono by the mean of its channels.

    Reads no more of the file than that takes. Content decides the format, not the extension: libsndfile's formats
    (wav, flac, mp3, ogg, opus, aiff and others).

    Raises:
      Reject: the file can't be opened, is not audio that libsndfile decodes, is empty, or holds samples that are not
        finite.
    """
    try:
        if storage.is_remote(path):
            rate_hz, samples = _read_remote(path, duration_s)
        else:
            if os.path.exists(path) and not os.path.isfile(path):
                raise Reject("read", "not a regular file")  # a pipe or a device may never end
            with open(path, "rb"):  # says what is wrong with a file that can't be opened; libsndfile hardly does
                pass
            rate_hz, samples = _read(path, duration_s)
    except FileNotFoundError:
        raise Reject("read", "no such file") from None
    except soundfile.LibsndfileError as error:
        raise Reject("decode", _reason(error)) from error
    except OSError as error:
        raise Reject("read", error.strerror or str(error)) from error
    except (soundfile.SoundFileRuntimeError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise Reject("decode", f"{type(error).__name__}: {error}") from error
    if not samples.size:
        raise Reject("decode", "no audio samples")
    if not np.isfinite(samples).all():
        raise Reject("decode", "samples that are not finite numbers (NaN or infinity)")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    content = hashlib.sha256(f"{rate_hz}\n".encode() + mono.tobytes()).hexdigest()
    return Audio(samples=np.ascontiguousarray(mono), sample_rate_hz=rate_hz, content_hash=content)


def _read(source, duration_s: float) -> tuple[int, np.ndarray]:
    """Rate and the first samples [n, channels] of a path or an open file."""
    with soundfile.SoundFile(source) as sound:
        rate_hz = sound.samplerate
        if not 1 <= rate_hz <= _MAX_SAMPLE_RATE_HZ:
            raise Reject("decode", f"sample rate {rate_hz} Hz is outside 1 to {_MAX_SAMPLE_RATE_HZ} Hz")
        frames = min(max(1, int(rate_hz * duration_s)), max(sound.frames, 0))
        return rate_hz, sound.read(frames, dtype="float32", always_2d=True)


def _read_remote(path: str, duration_s: float) -> tuple[int, np.ndarray]:
    with storage.open_read(path) as file:
        try:
            return _read(file, duration_s)
        except soundfile.LibsndfileError:
            # libsndfile takes a path's extension for a hint where the header alone doesn't tell (large ID3 tags), so
            # that a file must be tried under a name of its own to be treated as it would be on a local disk.
            file.seek(0)
            with tempfile.NamedTemporaryFile(suffix=os.path.splitext(path)[1]) as local:
                shutil.copyfileobj(file, local)
                local.flush()
                return _read(local.name, duration_s)


def _reason(error: soundfile.LibsndfileError) -> str:
    reason = error.error_string.removeprefix("Error : ").rstrip(".")
    # What libsndfile says of an mp3 that ends within its header, though the file is there.
    return "the header is cut off or damaged" if "does not exist" in reason else reason


def resample(samples: np.ndarray, *, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample float32 [n] with soxr's high quality, as librosa.load does.

    Raises:
      Reject: the result has no samples.
    """
    if from_hz == to_hz:
        return samples
    resampled = soxr.resample(samples, from_hz, to_hz, quality="HQ")
    # librosa keeps ceil(n * ratio) samples; soxr may give one more or one less.
    length = int(np.ceil(len(samples) * to_hz / from_hz))
    if not length:
        raise Reject("resample", "no audio samples")
    return fit(resampled, length)


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Cut [n] to `length` samples, or pad it with zeros at its end."""
    return samples[:length] if len(samples) >= length else np.pad(samples, (0, length - len(samples)))


def file_hash(path: str) -> str | None:
    """sha256 of a whole file, read in pieces; None where it can't be read."""
    if not storage.is_remote(path) and not os.path.isfile(path):
        return None
    result = hashlib.sha256()
    try:
        with storage.open_read(path) as file:
            while piece := file.read(1 << 20):
                result.update(piece)
    except OSError:
        return None
    return result.hexdigest()
