"""Several clips of one recording: which windows, what silence is, and that long recordings fit into little memory."""

import json
import pathlib
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile

from beam_preprocess import audio
from beam_preprocess.prepare import prepare
from beam_preprocess.settings import LogMelSettings, PrepareSettings, SplitSettings, WindowSettings
from tfdata import clips, layout

ROOT = pathlib.Path(__file__).parent.parent
RATE_HZ = 22_050


def noise(seconds, seed, rate_hz=RATE_HZ):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four recordings of 3.7 s each."""
    for label in ("a", "b"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for index in range(4):
            soundfile.write(tmp_path / "in" / label / f"{index}.wav", noise(3.7, hash_of(label, index)), RATE_HZ)
    return tmp_path / "in"


def hash_of(label, index):
    return ord(label) * 10 + index


def prepared(folder, output, *, clip_s=1.0, split=None, **windows):
    settings = PrepareSettings(
        log_mel=LogMelSettings(clip_s=clip_s), windows=WindowSettings(**windows), split=split or SplitSettings()
    )
    spec = prepare(
        output=str(output), input_path=str(folder), settings=settings, show_progress=False, max_reject_fraction=0.5
    )
    found = {}
    for name in spec.splits:
        split = clips.load_split(str(output), spec, name)
        found |= {clip.id: (name, clip, image) for clip, image in zip(split.clips, split.array)}
    return spec, found


@pytest.mark.parametrize(
    "windows, starts_s",
    [
        ({"max_windows": None}, [0, 1, 2]),
        ({"max_windows": None, "hop_s": 0.7}, [0, 0.7, 1.4, 2.1]),
        ({"max_windows": None, "hop_s": 1.35}, [0, 1.35, 2.7]),  # the last ends with the recording
        ({"max_windows": 2, "hop_s": 1.5}, [0, 1.5]),
        ({"max_windows": 9, "hop_s": 2.0}, [0, 2]),
        ({"max_windows": 1}, [0]),
    ],
)
def test_windows_start_every_hop_and_are_whole(folder, tmp_path, windows, starts_s):
    spec, found = prepared(folder, tmp_path / "d", **windows)
    expected = {f"{label}/{index}.wav@{start:g}" for label in "ab" for index in range(4) for start in starts_s}
    assert set(found) == expected and spec.num_clips == len(expected) and spec.num_recordings == 8


def test_each_window_is_what_librosa_makes_of_those_seconds(folder, tmp_path):
    _, found = prepared(folder, tmp_path / "d", max_windows=None, hop_s=0.5)
    settings = LogMelSettings()
    for id, (_, clip, image) in found.items():
        samples, _ = librosa.load(
            folder / clip.recording, sr=settings.sample_rate_hz, offset=clip.start_s, duration=settings.clip_s
        )
        mel = librosa.feature.melspectrogram(
            y=samples, sr=settings.sample_rate_hz, n_fft=settings.n_fft, hop_length=settings.hop_length
        )
        expected = np.log(np.maximum(mel, settings.log_floor))
        np.testing.assert_allclose(image, expected.astype(np.float16), atol=0.01, err_msg=id)


def test_all_clips_of_a_recording_stand_in_one_split(folder, tmp_path):
    for method in ("exact", "stable"):
        split = SplitSettings(method=method, seed=3, test_fraction=0.3)
        _, found = prepared(folder, tmp_path / method, max_windows=None, split=split)
        splits = {}
        for name, clip, _ in found.values():
            splits.setdefault(clip.recording, set()).add(name)
        assert all(len(names) == 1 for names in splits.values())
        assert {name for names in splits.values() for name in names} >= {"train"}


def test_silence_is_left_out_and_counted(folder, tmp_path):
    quiet = noise(3.0, 99)
    quiet[RATE_HZ : 2 * RATE_HZ] = 0  # digital silence
    quiet[2 * RATE_HZ :] *= 1e-3  # 0.1 at -20 dB, and 60 less
    soundfile.write(folder / "a" / "quiet.wav", quiet, RATE_HZ, subtype="FLOAT")
    soundfile.write(folder / "b" / "silent.wav", np.zeros(3 * RATE_HZ), RATE_HZ)

    spec, found = prepared(folder, tmp_path / "some", max_windows=None)
    assert [id for id in found if "quiet" in id or "silent" in id].__len__() == 3
    assert {"a/quiet.wav@0", "a/quiet.wav@2", "b/silent.wav@0"} <= set(found)
    assert spec.statistics["silent_windows"] == {"a": 1, "b": 2}

    spec, found = prepared(folder, tmp_path / "more", max_windows=None, silence_dbfs=-60.0)
    assert "a/quiet.wav@0" in found and not {"a/quiet.wav@1", "a/quiet.wav@2", "b/silent.wav@0"} & set(found)
    (reject,) = layout.read_rejects(str(tmp_path / "more"))
    assert (
        reject["path"] == "b/silent.wav" and reject["stage"] == "silence" and "-60 in all of its 3" in reject["reason"]
    )
    assert spec.statistics["rejected"] == {"b": 1} and spec.statistics["silent_windows"] == {"a": 2}


def test_levels_and_lengths_are_measured(tmp_path):
    """A sine's levels are known."""
    for label, amplitude in (("a", 0.5), ("b", 4.0)):
        (tmp_path / "in" / label).mkdir(parents=True)
        for index in range(4):
            seconds = 0.25 if index == 0 else 1.0
            time_s = np.arange(round(seconds * 8_000)) / 8_000
            sine = amplitude * np.sin(2 * np.pi * (400 + 40 * index) * time_s)
            soundfile.write(tmp_path / "in" / label / f"{index}.wav", np.clip(sine, -1, 1), 8_000, subtype="FLOAT")
    spec, found = prepared(tmp_path / "in", tmp_path / "d")
    whole = next(clip for _, clip, _ in found.values() if clip.recording == "a/1.wav")
    assert whole.peak == pytest.approx(0.5, rel=1e-3) and whole.rms == pytest.approx(0.5 / 2**0.5, rel=1e-3)
    assert whole.duration_s == 1.0 and whole.num_clipped == 0
    samples = soundfile.read(tmp_path / "in" / "b" / "2.wav")[0]
    clipped = next(clip for _, clip, _ in found.values() if clip.recording == "b/2.wav")
    assert clipped.num_clipped == pytest.approx((np.abs(samples) >= 0.999).sum(), rel=0.01)
    totals = [split["classes"][label] for split in spec.statistics["splits"].values() for label in split["classes"]]
    assert sum(total["num_padded"] for total in totals) == 2 and sum(total["num_clipped"] for total in totals) == 4
    level = spec.statistics["splits"]["train"]["classes"]["a"]["peak_dbfs"]
    assert level["max"] == pytest.approx(-6.02, abs=0.01)
    image = np.concatenate([image.ravel() for name, _, image in found.values() if name == "train"]).astype(np.float64)
    log_mel = spec.statistics["splits"]["train"]["log_mel"]
    assert log_mel["mean"] == pytest.approx(image.mean()) and log_mel["std"] == pytest.approx(image.std())
    assert (log_mel["min"], log_mel["max"]) == (image.min(), image.max())


@pytest.fixture(scope="module")
def two_hours(tmp_path_factory):
    """A recording of two hours, 635 MB of it, and a few short ones."""
    folder = tmp_path_factory.mktemp("long")
    minute = (noise(60, 1, 44_100) * 32767).astype(np.int16)
    for label in ("a", "b"):
        (folder / label).mkdir()
        for index in range(3):
            soundfile.write(folder / label / f"{index}.wav", noise(1.0, hash_of(label, index)), RATE_HZ)
    with soundfile.SoundFile(folder / "a" / "long.wav", "w", 44_100, 1, "PCM_16") as file:
        for index in range(120):
            file.write(np.roll(minute, index))
    return folder


def test_one_second_of_two_hours_does_not_read_them(two_hours):
    def bytes_read():
        return int(pathlib.Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    windows = audio.windows(str(two_hours / "a" / "long.wav"), clip_s=1.0, hop_s=1.0, max_windows=1)
    assert len(list(windows)) == 1 and bytes_read() - before < 1 << 20


def test_all_windows_of_two_hours_fit_into_little_memory(two_hours, tmp_path):
    """A whole recording in float32 would be 1.3 GB."""
    command = [sys.executable, "-m", "launch", "prepare", f"--input={two_hours}", f"--output={tmp_path}/d",
               "--windows=all", "--json"]  # fmt: skip
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, peak_kib = done.stdout.splitlines()
    assert json.loads(told)["num_clips"] == 7_206
    assert int(peak_kib) < 800_000
