"""Clips against librosa: the same decoding, resampling and log-mel, from files of many formats."""

import io

import librosa
import numpy as np
import pytest
import soundfile

from beam_preprocess import audio
from beam_preprocess.log_mel import LogMel
from beam_preprocess.settings import LogMelSettings
from launch.orchestra import INSTRUMENTS, synthesise


def librosa_log_mel(path, settings):
    samples, _ = librosa.load(path, sr=settings.sample_rate_hz, duration=settings.clip_s)
    samples = librosa.util.fix_length(samples, size=settings.num_samples)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=settings.sample_rate_hz, n_fft=settings.n_fft, hop_length=settings.hop_length,
        n_mels=settings.n_mels, fmin=settings.fmin_hz, fmax=settings.fmax_hz, power=settings.power,
    )  # fmt: skip
    return np.log(np.maximum(mel, settings.log_floor))


def first_window(path, clip_s=1.0):
    return list(audio.windows(str(path), clip_s=clip_s, hop_s=clip_s, max_windows=1))


def our_log_mel(path, settings):
    (window,) = first_window(path, settings.clip_s)
    samples = audio.resample(window.samples, from_hz=window.sample_rate_hz, to_hz=settings.sample_rate_hz)
    return LogMel(settings)(samples)


@pytest.mark.parametrize(
    "extension, subtype, rate_hz, channels",
    [
        ("wav", "PCM_16", 44_100, 1),
        ("wav", "PCM_U8", 8_000, 2),
        ("wav", "PCM_24", 96_000, 6),
        ("wav", "FLOAT", 12_000, 1),
        ("wav", "DOUBLE", 11_025, 1),
        ("flac", "PCM_24", 48_000, 2),
        ("ogg", "VORBIS", 22_050, 2),
        ("mp3", "MPEG_LAYER_III", 44_100, 1),
        ("aiff", "PCM_16", 32_000, 2),
    ],
)
def test_equals_librosa(tmp_path, extension, subtype, rate_hz, channels):
    note = synthesise(INSTRUMENTS["oboe"], 62, 0.5, sample_rate_hz=rate_hz, rng=np.random.default_rng(1))
    path = tmp_path / f"note.{extension}"
    different_channels = np.stack([note * 0.9**channel for channel in range(channels)], axis=1)
    soundfile.write(path, different_channels, rate_hz, subtype=subtype)
    settings = LogMelSettings()
    ours = our_log_mel(path, settings)
    assert ours.shape == (128, 12) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, librosa_log_mel(path, settings), atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        LogMelSettings(sample_rate_hz=16_000, n_fft=1024, hop_length=160, n_mels=64, fmin_hz=50.0, fmax_hz=7600.0),
        LogMelSettings(power=1.0, clip_s=0.73, n_fft=401, hop_length=200, n_mels=20),
        LogMelSettings(clip_s=3.0),  # longer than the note: padded
    ],
)
def test_other_settings_equal_librosa_too(tmp_path, settings):
    note = synthesise(INSTRUMENTS["cello"], 45, 0.5, sample_rate_hz=44_100, rng=np.random.default_rng(1))
    soundfile.write(tmp_path / "note.wav", note, 44_100)
    ours = our_log_mel(tmp_path / "note.wav", settings)
    assert ours.shape == settings.shape
    np.testing.assert_allclose(ours, librosa_log_mel(tmp_path / "note.wav", settings), atol=1e-4)


def test_real_notes_equal_librosa(recordings_dir):
    settings = LogMelSettings()
    for path in sorted((recordings_dir / "notes").rglob("*.mp3"))[::60]:
        np.testing.assert_allclose(our_log_mel(path, settings), librosa_log_mel(path, settings), atol=1e-4)


def test_content_decides_the_format_not_the_extension(tmp_path):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(500), 8_000, format="FLAC")
    (tmp_path / "note.wav").write_bytes(file.getvalue())
    assert first_window(tmp_path / "note.wav")[0].sample_rate_hz == 8_000


@pytest.mark.parametrize(
    "name, content, stage, reason",
    [
        ("empty.wav", b"", "decode", "."),
        ("words.flac", b"no sound in here, only words", "decode", "not recognised"),
        ("missing.wav", None, "read", "no such file"),
    ],
)
def test_rejects_say_stage_and_reason(tmp_path, name, content, stage, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(audio.Reject, match=reason) as rejected:
        first_window(tmp_path / name)
    assert rejected.value.stage == stage


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="half the sample rate"):
        LogMelSettings(sample_rate_hz=8_000)
    with pytest.raises(ValueError, match="n_mels must be above 0"):
        LogMelSettings(n_mels=0)
