"""The leak audit against brute force, librosa and SciPy, on synthetic notes and on real ones."""

import csv
import dataclasses
import io
import json

import librosa
import numpy as np
import pytest
import scipy.spatial.distance
import soundfile

from beam_preprocess import audio, near_copies
from beam_preprocess.leak_audit import leak_audit, probe_accuracy, summary
from beam_preprocess.log_mel import LogMel
from beam_preprocess.near_copies import Clips
from beam_preprocess.settings import LogMelSettings
from launch.orchestra import INSTRUMENTS, synthesise

RATE_HZ = 12_000
FLOOR = np.log(1e-10)


def image_of(samples):
    settings = LogMelSettings()
    return LogMel(settings)(np.asarray(samples, np.float32)).astype(np.float16)


def clips_of(images, labels=None, groups=None, prefix=""):
    ids = [f"{prefix}{n}" for n in range(len(images))]
    labels = np.zeros(len(images), int) if labels is None else np.asarray(labels)
    return Clips(np.asarray(images), labels, ids, ids if groups is None else groups)


@pytest.fixture(scope="module")
def notes():
    """Samples by (instrument, MIDI number, take): two takes of 12 pitches of three instruments, a semitone apart."""
    rng = np.random.default_rng(0)
    return {
        (name, midi, take): synthesise(INSTRUMENTS[name], midi, 0.2 + 0.4 * take, sample_rate_hz=RATE_HZ, rng=rng)
        for name in ("cello", "flute", "trumpet")
        for midi in range(60, 72)
        for take in range(2)
    }


def brute_force_db(a, b):
    """The definition, pair by pair, on librosa's dB: RMS over the bins in which either is within 40 dB of its top."""

    def levels(image):
        return librosa.power_to_db(np.exp(image.astype(np.float64)), ref=np.max, amin=1e-30, top_db=40.0) + 40.0

    def mean(x, y):
        return 10 * np.log10((10 ** (x / 10) + 10 ** (y / 10)) / 2)

    a, b = levels(a), levels(b)[:, 1:-1]
    early, late, least = a[:, :-2], a[:, 2:], np.inf
    for shifted in (early, mean(early, a[:, 1:-1]), a[:, 1:-1], mean(a[:, 1:-1], late), late):
        sounding = (shifted > 1e-9) | (b > 1e-9)
        least = min(least, np.sqrt(np.mean((shifted - b)[sounding] ** 2)))
    return least


def assert_equal_to_brute_force(heldout, train, threshold_db):
    away_db = np.array([[brute_force_db(a, b) for b in train.images] for a in heldout.images])
    expected = {
        heldout.ids[n]: (train.ids[row.argmin()], row.min())
        for n, row in enumerate(away_db)
        if row.min() <= threshold_db
    }
    found = near_copies.near_copies(heldout, train, threshold_db=threshold_db)
    assert {copy.clip: copy.train_clip for copy in found} == {clip: partner for clip, (partner, _) in expected.items()}
    for copy in found:
        assert copy.difference_db == pytest.approx(expected[copy.clip][1], abs=2e-3)
    assert [copy.difference_db for copy in found] == sorted(copy.difference_db for copy in found)
    return found


@pytest.mark.parametrize("threshold_db, num_found", [(3.5, 20), (6.0, 32), (15.0, 36)])
def test_every_near_copy_is_found_and_is_the_nearest(notes, threshold_db, num_found):
    images = [image_of(note) for note in notes.values()]
    found = assert_equal_to_brute_force(clips_of(images[::2]), clips_of(images[1::2]), threshold_db)
    assert len(found) == num_found


def test_blocks_and_crowds_change_nothing(notes, monkeypatch):
    images = [image_of(note) for note in notes.values()]
    heldout, train = clips_of(images[::2]), clips_of(images[1::2])
    whole = near_copies.near_copies(heldout, train, threshold_db=9.0)
    for name, size in {"_HELDOUT_BLOCK": 5, "_TRAIN_BLOCK": 7, "_PAIR_BLOCK": 3, "_MAX_CANDIDATES": 6}.items():
        monkeypatch.setattr(near_copies, name, size)
    assert len(whole) > 10 and near_copies.near_copies(heldout, train, threshold_db=9.0) == whole
    # A crowd: 40 almost equal clips, of which only the nearest few are looked at.
    rng = np.random.default_rng(0)
    crowd = images[0].astype(np.float32) + 0.05 * rng.standard_normal((40, 128, 12), np.float32)
    (copy,) = near_copies.near_copies(clips_of(images[:1]), clips_of([*crowd, images[0]]))
    assert copy.train_clip == "40" and copy.difference_db == 0.0


def later(samples, duration_s):
    return np.concatenate([np.zeros(round(duration_s * RATE_HZ)), samples])


def with_noise(samples, snr_db):
    noise = np.random.default_rng(1).standard_normal(len(samples))
    return samples + noise * np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)


@pytest.mark.parametrize(
    "alter, at_most_db",
    [
        (lambda x: x / 2, 0.02),
        (lambda x: x / 4, 0.02),
        (lambda x: np.round(x * 32767) / 32767, 0.1),
        (lambda x: with_noise(x, 40), 0.5),
        (lambda x: later(x, 0.005), 1.5),
        (lambda x: later(x, 1024 / RATE_HZ), 3.0),  # the last frame holds the clip's cut edge
        (lambda x: x[1024:], 3.0),
    ],
    ids=["-6 dB", "-12 dB", "16 bit", "noise at 40 dB", "5 ms later", "a frame later", "a frame earlier"],
)
def test_copies_are_found_and_named(notes, alter, at_most_db):
    train = clips_of([image_of(note) for note in notes.values()])
    chosen = list(range(0, len(notes), 7))
    samples = list(notes.values())
    found = near_copies.near_copies(clips_of([image_of(alter(samples[n])) for n in chosen], prefix="copy"), train)
    assert {copy.clip: copy.train_clip for copy in found} == {f"copy{k}": str(n) for k, n in enumerate(chosen)}
    assert max(copy.difference_db for copy in found) <= at_most_db and all(copy.same_class for copy in found)


def test_another_pitch_or_instrument_is_no_copy(notes):
    keys, images = list(notes), [image_of(note) for note in notes.values()]
    low = clips_of([image for key, image in zip(keys, images) if key[1] % 2])
    high = clips_of([image for key, image in zip(keys, images) if not key[1] % 2])
    assert near_copies.near_copies(low, high) == []


def test_magnitude_images_give_the_same_decibels(notes):
    images = np.array([image_of(note) for note in notes.values()], np.float32)
    heldout, train = images[::2], images[1::2]
    power = near_copies.near_copies(clips_of(heldout), clips_of(train), threshold_db=8.0)
    magnitude = near_copies.near_copies(clips_of(heldout / 2), clips_of(train / 2), threshold_db=8.0, power=1.0)
    assert power and [copy.difference_db for copy in magnitude] == pytest.approx(
        [copy.difference_db for copy in power], abs=1e-4
    )


def test_silence_is_a_copy_of_silence_alone(notes):
    silence = np.full((128, 12), FLOOR, np.float16)
    click = silence.copy()
    click[:, 0] = 2.0  # sounds in the frame that shifts leave out
    note = image_of(next(iter(notes.values())))
    found = near_copies.near_copies(
        clips_of([silence, click, note], prefix="h"), clips_of([note, silence, click, silence])
    )
    assert {copy.clip: (copy.train_clip, copy.difference_db) for copy in found} == {
        "h0": ("1", 0.0),
        "h1": ("2", 0.0),
        "h2": ("0", 0.0),
    }
    assert near_copies.near_copies(clips_of([silence, click]), clips_of([note])) == []
    assert near_copies.near_copies(clips_of([silence]), clips_of([click])) == []
    even = np.random.default_rng(0).uniform(-2.2, -2, (1, 128, 12))  # sounds in all bins alike, within 1 dB
    assert near_copies.near_copies(clips_of([silence]), clips_of(even)) == []


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_few_frames_will_do(frames):
    images = np.random.default_rng(0).uniform(-9, 0, (6, 20, frames)).astype(np.float16)
    found = near_copies.near_copies(clips_of(images[:2] - 3), clips_of(images))
    assert {copy.clip: copy.train_clip for copy in found} == {"0": "0", "1": "1"}


def test_what_cannot_be_compared():
    images = np.zeros((2, 8, 6), np.float16)
    assert near_copies.near_copies(clips_of(images), clips_of(images[:0])) == []
    assert near_copies.near_copies(clips_of(images[:0]), clips_of(images)) == []
    with pytest.raises(ValueError, match="differ in shape"):
        near_copies.near_copies(clips_of(images), clips_of(images[:, :4]))
    with pytest.raises(ValueError, match="finite"):
        clips_of(np.full((1, 8, 6), np.nan))
    with pytest.raises(ValueError, match="n labels"):
        Clips(images, np.zeros(3, int), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="at least 0"):
        near_copies.near_copies(clips_of(images), clips_of(images), threshold_db=-1)
    with pytest.raises(ValueError, match="clips on both sides"):
        probe_accuracy(clips_of(images), clips_of(images[:0]))


def random_clips(n, *, num_classes, seed, prefix=""):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, n)
    images = rng.normal(0, 1, (n, 6, 5)) + labels[:, None, None] * 0.3
    return clips_of(images.astype(np.float16), labels, prefix=prefix)


def test_the_probe_is_the_nearest_neighbour():
    train, test = random_clips(200, num_classes=4, seed=0), random_clips(80, num_classes=4, seed=1)
    a, b = (clips.images.reshape(len(clips), -1).astype(np.float64) for clips in (train, test))
    away = scipy.spatial.distance.cdist(b / a.std(axis=0), a / a.std(axis=0))
    expected = np.mean(train.labels[away.argmin(axis=1)] == test.labels)
    assert 0.3 < expected < 0.95 and probe_accuracy(train, test) == pytest.approx(expected)


def takes(num_groups, *, seed, prefix):
    """Groups of four takes that are near to each other; a group's class shows in nothing else."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_groups) % 3, 4)
    images = np.repeat(rng.normal(-5, 2, (num_groups, 16, 6)), 4, axis=0) + rng.normal(0, 0.05, (4 * num_groups, 16, 6))
    groups = [f"{prefix}{n // 4}" for n in range(4 * num_groups)]
    return clips_of(images.astype(np.float16), labels, groups, prefix)


def joined(a, b):
    return Clips(np.concatenate([a.images, b.images]), np.concatenate([a.labels, b.labels]),
                 [*a.ids, *b.ids], [*a.groups, *b.groups])  # fmt: skip


def test_a_grouped_split_is_told_from_a_random_one():
    train, test = takes(60, seed=0, prefix="train"), takes(20, seed=1, prefix="test")
    grouped = leak_audit({"train": train, "test": test})
    assert grouped["splits"]["test"] == {
        "num_clips": 80,
        "num_checked": 80,
        "num_near_copies": 0,
        "of_another_class": 0,
    }
    assert grouped["probe"]["own_split"] < 0.6 and grouped["probe"]["random_split"] > 0.95
    assert (grouped["probe"]["num_train"], grouped["probe"]["num_test"]) == (240, 80)
    assert "keep this one" in " ".join(summary(grouped))

    whole = joined(train, test)
    is_test = np.arange(len(whole)) % 4 == 0  # a take of each group
    leaky = leak_audit({"train": whole.take(np.flatnonzero(~is_test)), "test": whole.take(np.flatnonzero(is_test))})
    assert leaky["splits"]["test"]["num_near_copies"] == 80 and leaky["probe"]["own_split"] > 0.95
    assert "test: 80 of 80 clips" in summary(leaky)[0] and "--group" in summary(leaky)[-1]
    assert json.loads(json.dumps(leaky, allow_nan=False)) == leaky


def test_equal_images_stand_on_one_side_of_the_random_split():
    # Labels follow nothing, and each clip is there twice: only a copy on the other side would give its label away.
    rng = np.random.default_rng(0)
    images = np.repeat(rng.normal(-5, 2, (300, 8, 6)), 2, axis=0).astype(np.float16)
    clips = clips_of(images, np.repeat(rng.integers(0, 4, 300), 2))
    probe = leak_audit({"train": clips.take(np.arange(400)), "test": clips.take(np.arange(400, 600))})["probe"]
    assert probe["random_split"] < 0.45


def test_the_list_is_by_nearness_and_names_class_and_split():
    train = takes(60, seed=0, prefix="t")
    noise = np.random.default_rng(2).normal(0, 1, train.images.shape)
    scale = np.linspace(0.02, 0.2, len(train))[:, None, None]
    images = (train.images + noise * scale).astype(np.float16)
    test = clips_of(images, (train.labels + (np.arange(240) < 10)) % 3, prefix="test")
    audit = leak_audit({"train": train, "test": test, "validation": clips_of(train.images[:3], prefix="v")})
    listed = audit["near_copies"]
    assert len(listed) == 100 and [x["difference_db"] for x in listed] == sorted(x["difference_db"] for x in listed)
    assert listed[0].keys() == {"split", "clip", "train_clip", "difference_db", "same_class"}
    assert {x["clip"]: x["train_clip"] for x in listed if x["split"] == "validation"} == {
        f"v{n}": f"t{n}" for n in range(3)
    }
    assert audit["splits"]["test"] == {
        "num_clips": 240, "num_checked": 240, "num_near_copies": 240, "of_another_class": 10}  # fmt: skip
    assert "10 of another class" in " ".join(summary(audit))


def test_samples_are_reproducible_and_said():
    splits = {"train": takes(100, seed=0, prefix="a"), "test": takes(40, seed=1, prefix="b")}
    limits = {"max_heldout": 50, "max_train": 120, "max_probe": 200}
    audit = leak_audit(splits, seed=3, num_clips={"test": 900}, **limits)
    assert audit == leak_audit(splits, seed=3, num_clips={"test": 900}, **limits)
    assert audit["train"] == {"num_clips": 400, "num_checked": 120}
    assert audit["splits"]["test"]["num_checked"] == 50 and audit["splits"]["test"]["num_clips"] == 900
    assert audit["probe"]["num_train"] + audit["probe"]["num_test"] == 200
    assert audit["probe"]["random_split"] > 0.9  # groups were sampled whole: takes found each other
    assert audit["probe"] != leak_audit(splits, seed=4, **limits)["probe"]
    assert any("120 of 400 training clips" in line for line in summary(audit))


def test_odd_datasets_give_a_summary_all_the_same():
    some, none = takes(5, seed=0, prefix="a"), takes(0, seed=0, prefix="n")
    one_class = dataclasses.replace(some, labels=np.zeros(20, int))
    other_class = dataclasses.replace(takes(5, seed=1, prefix="b"), labels=np.full(20, 7))
    silent = clips_of(np.full((4, 16, 6), FLOOR, np.float16), [0, 1, 0, 1], prefix="s")
    for splits in (
        {},
        {"train": some},
        {"test": some},
        {"train": none, "test": some},
        {"train": some, "test": none},
        {"train": one_class, "test": one_class},
        {"train": one_class, "test": other_class},
        {"train": silent, "test": silent, "validation": silent},
        {"train": some.take(np.array([0])), "test": some.take(np.array([1]))},
    ):
        audit = leak_audit(splits)
        json.dumps(audit, allow_nan=False)
        assert 2 <= len(summary(audit)) <= 5
    assert leak_audit({"train": silent, "test": silent})["splits"]["test"]["num_near_copies"] == 4
    assert leak_audit({"train": one_class, "test": other_class})["probe"]["own_split"] == 0.0
    assert leak_audit({"train": one_class, "test": one_class})["probe"] is None


def test_real_notes(recordings_dir):
    """What the docstring of near_copies.py says of real notes, on 180 of them."""
    with open(recordings_dir / "notes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::7]
    paths = [str(recordings_dir / row["path"]) for row in rows]
    sounds = [next(audio.windows(path, clip_s=1.0, hop_s=1.0, max_windows=1)) for path in paths]

    def image(samples, rate_hz):
        return image_of(audio.resample(np.float32(samples), from_hz=rate_hz, to_hz=RATE_HZ))

    labels = np.unique([row["label"] for row in rows], return_inverse=True)[1]
    ids, groups = [row["path"] for row in rows], [row["group"] for row in rows]
    train = Clips(np.array([image(x.samples, x.sample_rate_hz) for x in sounds]), labels, ids, groups)

    def encoded(sound, **options):
        file = io.BytesIO()
        soundfile.write(file, sound.samples, sound.sample_rate_hz, **options)
        return image(*soundfile.read(io.BytesIO(file.getvalue()), dtype="float32"))

    for least, options in {
        1.0: {"format": "WAV", "subtype": "PCM_16"},
        0.97: {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.5},
        0.7: {"format": "WAV", "subtype": "PCM_U8"},
    }.items():
        copies = dataclasses.replace(train, images=np.array([encoded(sound, **options) for sound in sounds]))
        found = near_copies.near_copies(copies, train)
        assert len(found) >= least * len(rows)
        assert sum(copy.clip == copy.train_clip for copy in found) >= 0.95 * len(found)

    places = np.arange(len(rows))
    first, second = train.take(places[::2]), train.take(places[1::2])
    group_of = dict(zip(ids, groups))
    assert all(group_of[copy.clip] == group_of[copy.train_clip] for copy in near_copies.near_copies(first, second))
    assert len(assert_equal_to_brute_force(first.take(np.arange(40)), second, 9.0)) > 5
