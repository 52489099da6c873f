"""Recordings that break readers: each ends as a clip or as a reject with its name, and the others go on."""

import io
import os
import pathlib
import shutil
import struct
import tempfile
import threading
import time

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.local import LocalFileSystem

from beam_preprocess import audio, time_limit
from beam_preprocess.prepare import prepare
from beam_preprocess.recordings import find_recordings
from beam_preprocess.settings import PrepareSettings
from tfdata import layout, storage


def wav(samples, rate_hz=8_000, channels=1, bits=16, data_bytes=None, kind=1):
    """The bytes of a wav file whose header says what it is told to."""
    data = samples.tobytes()
    align = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * align % 2**32, align, bits)
    size = len(data) if data_bytes is None else data_bytes
    return b"RIFF" + struct.pack("<I", min(36 + size, 2**32 - 1)) + b"WAVEfmt \x10\0\0\0" + header + (
        b"data" + struct.pack("<I", size) + data
    )  # fmt: skip


def tone(rate_hz, seconds=1.0, channels=1, dtype=np.int16, step=0.3):
    samples = 0.5 * np.sin(np.arange(max(1, round(rate_hz * seconds))) * step)
    samples = samples * 32767 if dtype == np.int16 else samples
    return np.repeat(samples.astype(dtype)[:, None], channels, axis=1)


def with_value(value):
    samples = tone(8_000, dtype=np.float32)
    samples[100] = value
    return wav(samples, bits=32, kind=3)


USABLE = {
    "rate 1 Hz.wav": wav(tone(1, 3), 1),
    "rate 768 kHz.wav": wav(tone(768_000), 768_000),
    "64 channels.wav": wav(tone(8_000, channels=64), channels=64),
    "1000 channels.wav": wav(tone(8_000, channels=1000), channels=1000),
    "claims 2 GB and holds half a second.wav": wav(tone(8_000, 0.5), data_bytes=2**31),
    "claims 4 GB of 1000 channels.wav": wav(tone(8_000, 0.01, channels=1000), channels=1000, data_bytes=2**32 - 1),
    "one sample.wav": wav(tone(8_000, 1 / 8_000)),
    "'quotes\" and\nnewline, comma.wav": wav(tone(8_000, 0.7)),
    "Flöte 笛 🎵.wav": wav(tone(8_000, 0.6)),
    "-dash": wav(tone(8_000, 0.4)),
}
REJECTED = {
    "not a number.wav": (with_value(np.nan), "decode: samples that are not finite"),
    "infinite.wav": (with_value(-np.inf), "decode: samples that are not finite"),
    "enormous.wav": (with_value(1e30), "decode: samples up to 1e+30"),
    "no samples.wav": (wav(tone(8_000)[:0]), "decode: no audio samples"),
    "claims 2 GB and holds nothing.wav": (wav(tone(8_000)[:0], data_bytes=2**31), "decode: no audio samples"),
    "empty.wav": (b"", "decode: "),
    "header alone.mp3": (b"\xff\xfb\x90\x00", "decode: "),
    "zeros.flac": (bytes(5_000), "decode: "),
    "words.ogg": (b"no sound in here, only words", "decode: "),
    "rate 0.wav": (wav(tone(8_000), 0), "decode: "),
    "no channels.wav": (wav(tone(8_000), channels=0), "decode: "),
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """All of the above in one class, beside a class of good recordings; the spec and what was made of each name."""
    folder = tmp_path_factory.mktemp("bad")
    for label in ("good", "odd"):
        (folder / "in" / label).mkdir(parents=True)
    for index in range(12):
        (folder / "in" / "good" / f"{index}.wav").write_bytes(wav(tone(8_000, 0.5 + index / 100, step=0.2)))
    for name, content in [*USABLE.items(), *((name, content) for name, (content, _) in REJECTED.items())]:
        (folder / "in" / "odd" / name).write_bytes(content)
    os.mkfifo(folder / "in" / "odd" / "pipe.wav")
    (folder / "in" / "odd" / "device.wav").symlink_to("/dev/zero")
    (folder / "in" / "odd" / "nowhere.wav").symlink_to("/nowhere/at/all")
    (folder / "in" / "odd" / "itself.wav").symlink_to(folder / "in" / "odd" / "itself.wav")
    (folder / "in" / "odd" / "circle").symlink_to(folder / "in" / "odd")
    (folder / "in" / "good.wav").write_bytes(wav(tone(8_000)))  # outside the class folders
    started = time.monotonic()
    spec = prepare(output=f"{folder}/d", input_path=f"{folder}/in", settings=PrepareSettings(), show_progress=False,
                   max_reject_fraction=0.9)  # fmt: skip
    assert time.monotonic() - started < 60
    return spec, {line["path"]: f"{line['stage']}: {line['reason']}" for line in layout.read_rejects(f"{folder}/d")}


@pytest.mark.parametrize("name", USABLE)
def test_what_can_be_used_is(prepared, name):
    assert f"odd/{name}" not in prepared[1]


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_is_named_with_a_reason(prepared, name):
    assert prepared[1][f"odd/{name}"].startswith(REJECTED[name][1])


def test_nothing_vanishes(prepared):
    spec, rejects = prepared
    others = {"odd/pipe.wav", "odd/device.wav", "odd/nowhere.wav", "odd/itself.wav", "good.wav"}
    assert set(rejects) == {f"odd/{name}" for name in REJECTED} | others
    assert spec.num_recordings == len(USABLE) + 12 and spec.num_rejects == len(rejects)
    assert rejects["odd/pipe.wav"] == rejects["odd/device.wav"] == "read: not a regular file"
    assert rejects["odd/nowhere.wav"] == "read: no such file"
    assert "read: " in rejects["odd/itself.wav"] and "outside a class folder" in rejects["good.wav"]
    assert spec.statistics["rejected"] == {"odd": len(rejects) - 1}


def test_many_channels_are_read_in_small_pieces():
    """Ten minutes of 1000 channels would be 19 GB; the clip is all of the second that there is."""
    import tracemalloc

    content = wav(tone(8_000, channels=1000), channels=1000)
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        tracemalloc.start()
        samples = audio._read_mono(sound, 600 * 8_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(samples) == 8_000 and peak < 60 << 20


class StuckFileSystem(LocalFileSystem):
    """Local files under stuck://, of which those with "hang" in their name never come back from a read."""

    protocol = "stuck"
    vanish: set = set()

    def _open(self, path, mode="rb", **options):
        if "hang" in os.path.basename(path) and mode == "rb":
            threading.Event().wait()
        if "vanish" in os.path.basename(path):
            raise FileNotFoundError(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def stuck(tmp_path):
    fsspec.register_implementation("stuck", StuckFileSystem, clobber=True)
    for label in ("a", "b"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for index in range(6):
            (tmp_path / "in" / label / f"{index}.wav").write_bytes(
                wav(tone(8_000, 0.3 + index / 20, step=0.2 + 0.1 * (label == "a")))
            )
    return tmp_path


def test_a_decoder_that_hangs_is_left_behind(stuck):
    for name in ("a/2 hangs.wav", "b/2 hangs.wav", "b/3 hangs.wav"):
        shutil.copy(stuck / "in" / "a" / "0.wav", stuck / "in" / name)
    spec = prepare(output=f"{stuck}/d", input_path=f"stuck://{stuck}/in", settings=PrepareSettings(),
    decode_timeout_s=0.5,
                   max_reject_fraction=0.3, show_progress=False)  # fmt: skip
    assert spec.num_recordings == 12
    rejects = {line["path"]: line for line in layout.read_rejects(f"{stuck}/d")}
    assert set(rejects) == {"a/2 hangs.wav", "b/2 hangs.wav", "b/3 hangs.wav"}
    for line in rejects.values():
        assert line["stage"] == "decode" and line["reason"] == "gave nothing for 0.5 s (--decode_timeout_s)"


def test_a_file_that_vanishes_while_the_job_runs_is_named(stuck):
    shutil.copy(stuck / "in" / "a" / "0.wav", stuck / "in" / "a" / "vanishes.wav")  # listed, and not there to be opened
    prepare(output=f"{stuck}/d", input_path=f"stuck://{stuck}/in", settings=PrepareSettings(), show_progress=False)
    (reject,) = layout.read_rejects(f"{stuck}/d")
    assert (reject["path"], reject["stage"], reject["reason"]) == ("a/vanishes.wav", "read", "no such file")


def test_a_store_that_fails_says_nothing_of_the_recording(stuck, monkeypatch):
    """libsndfile takes a failed read for the end of the file; it must not become a reject or a shorter clip."""
    monkeypatch.setattr(storage, "open_read", lambda path: FailingFile())
    with pytest.raises(OSError, match="the store has gone away"):
        list(audio.windows(f"stuck://{stuck}/in/a/0.wav", clip_s=1.0, hop_s=1.0, max_windows=1))


class FailingFile(io.BytesIO):
    """A good header, and then an error."""

    def __init__(self):
        super().__init__(wav(tone(8_000)))

    def read(self, size=-1):
        if self.tell() >= 44:
            raise OSError("the store has gone away")
        return super().read(size)


def test_the_time_limit_gives_all_results_in_order_and_restarts():
    started = []

    def work():
        started.append(1)

        def one(item):
            for value in range(item):
                if item == 3 and value == 1:
                    threading.Event().wait()
                yield value
            if item == 5:
                raise KeyError("five")

        return one

    found = {}
    for item, result in time_limit.each([2, 3, 200, 5, 0], work, timeout_s=0.3):
        found.setdefault(item, []).append(result)
    assert found[2] == [0, 1, time_limit.End()]
    assert found[3][0] == 0 and isinstance(found[3][-1].error, time_limit.TimedOut)
    assert found[200] == [*range(200), time_limit.End()]
    assert found[5][:5] == list(range(5)) and isinstance(found[5][-1].error, KeyError)
    assert found[0] == [time_limit.End()] and len(started) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user, which only root can")
def test_what_may_not_be_read_is_named():
    folder = pathlib.Path(tempfile.mkdtemp())  # not tmp_path, into which another user can't look
    folder.chmod(0o755)
    for label in ("a", "b"):
        (folder / label / "locked").mkdir(parents=True)
        (folder / label / "1.wav").write_bytes(wav(tone(8_000)))
        (folder / label / "locked" / "2.wav").write_bytes(wav(tone(8_000)))
    (folder / "a" / "locked").chmod(0)
    (folder / "b" / "1.wav").chmod(0)
    rejects = []
    os.seteuid(65534)
    try:
        for recording in find_recordings(input_path=str(folder), manifest=None, group=None, classes=()):
            try:
                list(audio.windows(recording.path, clip_s=1.0, hop_s=1.0, max_windows=1))
            except audio.Reject as reject:
                rejects.append((recording.label, recording.name, str(reject)))
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)
    assert rejects == [("a", "a/locked/", "read: Permission denied"), ("b", "b/1.wav", "read: Permission denied")]
