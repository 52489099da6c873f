"""From an audio file of any format, rate, depth and channel count to mono samples, window by window."""

import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from tfdata import storage

_MAX_SAMPLE_RATE_HZ = 1_000_000
_MAX_HASHED_BYTES = 1 << 30  # a rejected file may be anything, an archive of a terabyte too
_MAX_BLOCK_VALUES = 1 << 22  # samples times channels read at once: 16 MiB, whatever a header claims


class Reject(Exception):
    """A recording that can't be used: the stage that refused it ("read", "decode", "resample", ...) and why."""

    def __init__(self, stage: str, reason: str):
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Window:
    """Mono audio: float32 samples [n] in about [-1, 1], their rate, and where in the recording they start."""

    samples: np.ndarray
    sample_rate_hz: int
    start_s: float


def windows(path: str, *, clip_s: float, hop_s: float, max_windows: int | None) -> Iterator[Window]:
    """The windows of `clip_s` seconds that start every `hop_s` seconds, mixed down by the mean of the channels.

    A recording's first window may be shorter than `clip_s`, where the recording is; later ones are whole, so that a
    rest at the end makes no clip. No more of the file is read than the windows take, and no more than one window is
    held. Content decides the format, not the extension: libsndfile's formats (wav, flac, mp3, ogg, opus, aiff and
    others).

    Args:
      max_windows: at most so many; None for all.
    Raises:
      Reject: the file can't be opened, is not audio that libsndfile decodes, or is empty.
      OSError: an object store failed, which says nothing of the file: the work is to be tried again.
    """
    try:
        with _open(path) as sound:
            rate_hz = sound.samplerate
            if not 1 <= rate_hz <= _MAX_SAMPLE_RATE_HZ:
                raise Reject("decode", f"sample rate {rate_hz} Hz is outside 1 to {_MAX_SAMPLE_RATE_HZ} Hz")
            yield from _windows(sound, clip_s, hop_s, max_windows)
    except FileNotFoundError:
        raise Reject("read", "no such file") from None
    except soundfile.LibsndfileError as error:
        raise _explained(path, error) from error
    except OSError as error:
        if storage.is_remote(path) and not isinstance(error, PermissionError):
            raise
        raise Reject("read", error.strerror or str(error)) from error
    except (soundfile.SoundFileRuntimeError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise Reject("decode", f"{type(error).__name__}: {error}") from error


def _windows(sound: soundfile.SoundFile, clip_s: float, hop_s: float, max_windows: int | None) -> Iterator[Window]:
    rate_hz = sound.samplerate
    length = max(1, int(rate_hz * clip_s))
    held, held_from = np.zeros(0, np.float32), 0  # samples read and not yet behind us, and their place in the recording
    index = 0
    while max_windows is None or index < max_windows:
        start_s = round(index * hop_s, 6)
        start = round(start_s * rate_hz)
        gap = start - (held_from + len(held))
        while gap > 0:  # a hop longer than a clip: what lies between is read and dropped
            dropped = len(_read_mono(sound, min(gap, length)))
            if not dropped:
                return
            held, held_from, gap = held[:0], start - gap + dropped, gap - dropped
        missing = start + length - (held_from + len(held))
        read = _read_mono(sound, missing) if missing > 0 else held[:0]
        held = np.concatenate([held, read]) if len(held) else read
        held, held_from = held[max(0, start - held_from) :], max(held_from, start)
        if not index and not len(held):
            raise Reject("decode", "no audio samples")
        if index and len(held) < length:
            return
        yield Window(held[:length], rate_hz, start_s)
        index += 1


def _read_mono(sound: soundfile.SoundFile, num_samples: int) -> np.ndarray:
    """The next float32 samples [up to num_samples], in blocks that stay small whatever the number of channels."""
    block = max(1, _MAX_BLOCK_VALUES // sound.channels)
    pieces = [np.zeros(0, np.float32)]
    while num_samples > 0:
        asked = min(num_samples, block)
        samples = sound.read(asked, dtype="float32", always_2d=True)
        pieces.append(samples[:, 0] if sound.channels == 1 else samples.mean(axis=1))
        num_samples -= len(samples)
        if len(samples) < asked:  # the end
            break
    return pieces[-1] if len(pieces) <= 2 else np.concatenate(pieces)


@contextlib.contextmanager
def _open(path: str) -> Iterator[soundfile.SoundFile]:
    if not storage.is_remote(path):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # says why it can't be listed, which is how it came to be an input
        if not stat.S_ISREG(mode):
            raise Reject("read", "not a regular file")  # a pipe or a device may never end
        with soundfile.SoundFile(path) as sound:
            yield sound
        return
    with contextlib.ExitStack() as stack:
        file = _RemoteFile(stack.enter_context(storage.open_read(path)))
        stack.callback(file.check)  # whatever the decoder made of a failed read
        try:
            sound = soundfile.SoundFile(file)
        except soundfile.LibsndfileError:
            file.check()
            # libsndfile takes a path's extension for a hint where the header alone doesn't tell (large ID3 tags), so
            # that a file must be tried under a name of its own to be treated as it would be on a local disk.
            file.seek(0)
            local = stack.enter_context(tempfile.NamedTemporaryFile(suffix=os.path.splitext(path)[1]))
            shutil.copyfileobj(file, local)
            local.flush()
            sound = soundfile.SoundFile(local.name)
        yield stack.enter_context(sound)


class _RemoteFile:
    """A remote file for libsndfile, which would take a failed read for the end of the sound."""

    def __init__(self, file):
        self._file = file
        self._error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raise the error of a read that failed."""
        if self._error:
            raise self._error if isinstance(self._error, OSError) else OSError(str(self._error)) from self._error


def _explained(path: str, error: soundfile.LibsndfileError) -> Reject:
    """Why a file can't be decoded; libsndfile hardly says what is wrong with one that can't even be opened."""
    if not storage.is_remote(path):
        try:
            with open(path, "rb"):
                pass
        except FileNotFoundError:
            return Reject("read", "no such file")
        except OSError as cause:
            return Reject("read", cause.strerror or str(cause))
    reason = error.error_string.removeprefix("Error : ").rstrip(".")
    # What libsndfile says of an mp3 that ends within its header, though the file is there.
    return Reject("decode", "the header is cut off or damaged" if "does not exist" in reason else reason)


def resample(samples: np.ndarray, *, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample float32 [n] with soxr's high quality, as librosa.load does; [up to ceil(n * to_hz / from_hz)].

    Of a few samples nothing may be left, where librosa gives zeros: what follows pads with zeros anyway.
    """
    if from_hz == to_hz:
        return samples
    resampled = soxr.resample(samples, from_hz, to_hz, quality="HQ")
    return resampled[: math.ceil(len(samples) * to_hz / from_hz)]


def file_hash(path: str) -> str | None:
    """sha256 of a whole file, read in pieces; None where it can't be read, or holds over a GiB."""
    if not storage.is_remote(path) and not os.path.isfile(path):
        return None
    result, num_bytes = hashlib.sha256(), 0
    try:
        with storage.open_read(path) as file:
            while piece := file.read(1 << 20):
                result.update(piece)
                num_bytes += len(piece)
                if num_bytes > _MAX_HASHED_BYTES:
                    return None
    except OSError:
        return None
    return result.hexdigest()
