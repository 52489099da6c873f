"""Features of other clips by the same network: strategies, --like, variants, what changed since, what goes wrong."""

import dataclasses
import errno
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from tests_support import write_manifest

from launch import network_weights
from launch.ahead import ahead
from launch.feature_cache import cache_features
from launch.feature_settings import FeatureSettings, settings_like
from model import strategy as strategies
from model.extract import Extractor
from tfdata import augment, clips, layout, lineage, records, schema, storage, verify
from tfdata.spec import DatasetError
from tfdata.unfinished import Unfinished

ROOT = pathlib.Path(__file__).parent.parent


def cache(data, output, *, like=None, settings=None, **options):
    settings = settings or settings_like(str(like), layout.read_spec(str(like)), {})
    return cache_features(
        data=str(data), output=str(output), settings=settings, like=like and str(like),
        **{"batch_size": 8, "provenance": {}, "show_progress": False, **options},
    )  # fmt: skip


def assert_same_dataset(ours, theirs):
    for shard in sorted(theirs.glob("features-*")):
        assert (ours / shard.name).read_bytes() == shard.read_bytes(), shard.name
    assert (ours / "COMPLETED").read_text() == (theirs / "COMPLETED").read_text()


def edit_shard(directory, split, change):
    """Change the records of a split's first shard and let the spec know it, as if it had been written so."""
    spec = layout.read_spec(str(directory))
    path = layout.shard_paths(str(directory), spec, split)[0]
    changed = [change(record) for record in records.unframe(storage.read_bytes(path), where=path)]
    unfinished = Unfinished(str(directory))
    names = layout.shard_names(spec.kind, split, len(spec.splits[split].shard_lengths))
    for name in names:
        data = records.frame(changed) if path.endswith(name) else (directory / name).read_bytes()
        unfinished.write_shard(name, data, num_clips=len(list(records.unframe(data, where=name))), content="")
    info = unfinished.split_info(names, spec.splits[split].class_counts)
    unfinished.remove()
    spec = dataclasses.replace(spec, splits={**spec.splits, split: info})
    storage.write_text(str(directory / layout.SPEC), spec.to_json())


def test_two_replicas_give_the_bytes_of_one_device(clips_dir, features_dir, same_network, tmp_path):
    """MirroredStrategy over two logical CPUs, in a process of its own; the last batch is not full."""
    code = f"""
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_cache_growth as here
try:
    here.cache({str(clips_dir)!r}, "refused", like={str(same_network)!r}, strategy="mirrored", batch_size=9)
except ValueError as error:
    print(error)
print(here.cache({str(clips_dir)!r}, {str(tmp_path / "f")!r}, like={str(same_network)!r}, strategy="mirrored").devices)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--batch_size=9 can't be divided evenly among 2 replicas: take 8" in done.stdout
    assert "2 logical CPUs, mirrored" in done.stdout and not (tmp_path / "refused").exists()
    assert_same_dataset(tmp_path / "f", features_dir)


def test_a_strategy_is_chosen_by_what_is_there():
    _, why = strategies.choose("auto")
    assert why == "the CPU: there is neither TPU nor GPU"
    with pytest.raises(strategies.DeviceError, match="no GPU is here, only CPU:0"):
        strategies.choose("mirrored")
    with pytest.raises(strategies.DeviceError, match="--engine=beam"):
        strategies.choose("multiworker")


@pytest.fixture(scope="module")
def few_clips(orchestra, melcache_json, tmp_path_factory):
    """Five of the orchestra's notes, in a collection of their own that has a test split only."""
    import csv

    folder = tmp_path_factory.mktemp("few")
    with open(orchestra / "notes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (orchestra / row["path"]).stat().st_size > 10_000]
    labels = sorted({row["label"] for row in rows})
    rows = [row for label in labels for row in [row for row in rows if row["label"] == label][:2]][:5]
    write_manifest(folder / "few.csv", [{**row, "split": "test"} for row in rows])
    melcache_json("prepare", f"--manifest={folder}/few.csv", f"--input={orchestra}", "--group=group",
                  f"--output={folder}/clips", "--max_reject_fraction=0.5")  # fmt: skip
    return folder / "clips"


@pytest.fixture(scope="module")
def few_features(few_clips, same_network, tmp_path_factory):
    output = tmp_path_factory.mktemp("few_features") / "dataset"
    cached = cache(few_clips, output, like=same_network)
    assert cached.num_taken == 0 and "older melcache" in cached.nothing_taken
    assert cached.num_embedded == layout.read_spec(str(few_clips)).num_clips
    return output


def test_like_embeds_only_what_is_new(clips_dir, few_clips, features_dir, few_features, tmp_path):
    with pytest.raises(DatasetError, match="no train split.*--like"):
        cache(few_clips, tmp_path / "f", settings=FeatureSettings(weights="random"))
    num_few = layout.read_spec(str(few_clips)).num_clips
    cached = cache(clips_dir, tmp_path / "f", like=few_features)
    assert (cached.num_taken, cached.num_embedded) == (num_few, cached.spec.num_clips - num_few)
    assert 0 < num_few < cached.spec.num_clips
    assert_same_dataset(tmp_path / "f", features_dir)


def test_what_changed_since_is_named_with_the_command_that_mends_it(
    clips_dir, few_clips, few_features, features_dir, same_network
):
    features, whole = layout.read_spec(str(features_dir)), layout.read_spec(str(clips_dir))
    assert lineage.difference(features, whole) is None
    log_mel = {**whole.settings["log_mel"], "n_mels": 64}
    other = dataclasses.replace(whole, settings={**whole.settings, "log_mel": log_mel})
    assert lineage.difference(features, other) == "log_mel.n_mels=128 then, 64 now"
    other = dataclasses.replace(whole, class_names=("a", "b", "c"))
    assert lineage.difference(features, other).startswith("class_names=['cello', 'flute', 'oboe'] then, ['a',")
    assert "fingerprint" in lineage.difference(layout.read_spec(str(same_network)), other)

    num_new = whole.num_clips - layout.read_spec(str(few_clips)).num_clips
    with pytest.raises(DatasetError) as refused:
        cache(clips_dir, few_features, settings=FeatureSettings(weights="random"))
    assert f"({num_new} clips are new, 0 gone)" in str(refused.value)
    command = f"melcache cache --data={clips_dir} --like={few_features} --output={few_features}_new"
    assert str(refused.value).endswith(command)


def test_settings_that_contradict_like_are_refused_by_name(features_dir):
    spec = layout.read_spec(str(features_dir))
    assert settings_like("F", spec, {"weights": "random", "seed": 0}) == FeatureSettings(weights="random")
    for given in ({"weights": "imagenet"}, {"seed": 1}, {"precision": "float32"}, {"variants": 1}, {"pooled": True}):
        (name,) = given
        with pytest.raises(DatasetError, match=f"--{name}={given[name]} contradicts --like=F"):
            settings_like("F", spec, given)


@pytest.fixture(scope="module")
def varied(clips_dir, features_dir, tmp_path_factory):
    """Pooled features in float32 with two variants, by the network of `features_dir`."""
    output = tmp_path_factory.mktemp("varied") / "dataset"
    (output / "unfinished").mkdir(parents=True)  # as if interrupted, so that statistics are not measured again
    shutil.copy(features_dir / network_weights.STATISTICS, output / "unfinished")
    settings = FeatureSettings(weights="random", precision="float32", pooled=True, variants=2)
    cache(clips_dir, output, settings=settings)
    return output


def test_pooled_features_are_means(varied, features_dir):
    ours, theirs = layout.read_spec(str(varied)), layout.read_spec(str(features_dir))
    assert ours.array.shape == (1536,) and ours.array.dtype == "float32"
    for split in theirs.splits:
        pooled = clips.load_split(str(varied), ours, split)
        maps = clips.load_split(str(features_dir), theirs, split)
        np.testing.assert_allclose(pooled.array, maps.array.astype(np.float32).mean(axis=(1, 2)), atol=2e-3)
        assert pooled.clips == maps.clips
    # Stored in float32 they are nearer to the live network's than float16 can be.
    assert ours.parity["relative_rms"] < 1e-5 < theirs.parity["relative_rms"] < 1e-3
    assert min(spec.parity["training_mode_relative_rms"] for spec in (ours, theirs)) > 0.3


def test_variants_mirror_the_training_clips(varied, clips_dir):
    from model.backbone import LateImage

    spec, clips_spec = layout.read_spec(str(varied)), layout.read_spec(str(clips_dir))
    assert layout.variant_splits(spec, "train") == ["train_variant1", "train_variant2"]
    assert layout.variant_splits(spec, "test") == [] and spec.num_clips == clips_spec.num_clips
    train = clips.load_split(str(varied), spec, "train")
    backbone = network_weights.of_dataset(str(varied), spec).build_backbone()
    log_mels = clips.load_split(str(clips_dir), clips_spec, "train").array
    for number, split in enumerate(layout.variant_splits(spec, "train"), start=1):
        assert spec.splits[split].shard_lengths == spec.splits["train"].shard_lengths
        variant = clips.load_split(str(varied), spec, split)
        assert variant.clips == train.clips and (variant.labels == train.labels).all()
        assert (np.abs(variant.array - train.array).max(axis=1) > 0.01).all()
        changed = augment.augment(
            log_mels[2], augment.AugmentSettings(), clip_id=train.clips[2].id, variant=number,
            log_mel_settings=clips_spec.settings["log_mel"],
        )  # fmt: skip
        image = LateImage(network_weights.of_dataset(str(varied), spec).image)(changed[np.newaxis])
        live = np.asarray(backbone(image, training=False)).mean(axis=(1, 2))[0]
        np.testing.assert_allclose(variant.array[2], live, atol=1e-4)
    verdict = verify.verify(str(varied))
    assert verdict.ok, verdict.problems


def test_tensorflow_datasets_and_verify_know_variants(varied, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    spec = layout.read_spec(str(varied))
    builder = tfds.builder_from_directory(str(varied))
    theirs = list(tfds.as_numpy(builder.as_dataset(split="train_variant2", shuffle_files=False)))
    ours = clips.load_split(str(varied), spec, "train_variant2")
    np.testing.assert_array_equal(np.stack([example["feature"] for example in theirs]), ours.array)
    assert [example["id"].decode() for example in theirs] == [clip.id for clip in ours.clips]

    shutil.copytree(varied, tmp_path / "f")
    foreign = next(records.unframe(storage.read_bytes(layout.shard_paths(str(varied), spec, "test")[0]), where=""))
    edit_shard(tmp_path / "f", "train_variant1", lambda record: foreign)
    assert verify.verify(str(tmp_path / "f")).problems == [
        "train_variant1 does not hold the clips of train in their order"
    ]


def test_a_variant_is_what_was_asked_for():
    settings, silence = {"log_floor": 1e-10, "power": 2.0}, np.log(1e-10)
    log_mel = np.random.default_rng(0).normal(-8, 1, (128, 12)).astype(np.float16)
    log_mel[100] = silence

    def made(**changed):
        options = augment.AugmentSettings(**changed)
        return [
            augment.augment(log_mel, options, clip_id="a@0", variant=number, log_mel_settings=settings)
            for number in range(1, 30)
        ]

    nothing = {"gain_db": 0.0, "shift_fraction": 0.0, "mel_mask_fraction": 0.0, "time_mask_fraction": 0.0}
    np.testing.assert_array_equal(made(**nothing)[0], log_mel.astype(np.float32))
    gains = [(variant - log_mel)[:100] for variant in made(**{**nothing, "gain_db": 6.0})]
    in_db = np.array([gain.mean() for gain in gains]) * 10 / np.log(10)
    assert max(gain.std() for gain in gains) < 1e-3 and in_db.min() < -3 and in_db.max() > 3 and abs(in_db).max() <= 6
    assert all((variant[100] == log_mel[100]).all() for variant in made(**{**nothing, "gain_db": 6.0}))
    widths = set()
    for variant in made(**{**nothing, "mel_mask_fraction": 0.125, "time_mask_fraction": 0.2}):
        masked = variant != log_mel
        rows, columns = masked.mean(axis=1) > 0.9, masked.mean(axis=0) > 0.9
        assert (masked == (rows[:, None] | columns)).all()
        widths.add((int(rows.sum()), int(columns.sum())))
    assert max(width for width, _ in widths) in range(10, 17) and {width for _, width in widths} == {0, 1, 2}
    shifts = set()
    for variant in made(**{**nothing, "shift_fraction": 0.25}):
        silent = int((variant[:100] < -20).all(axis=0).sum())
        first = variant[0, 0] < -20
        kept, source = (variant[:, silent:], log_mel[:, : 12 - silent]) if first else (
            variant[:, : 12 - silent], log_mel[:, silent:])  # fmt: skip
        np.testing.assert_array_equal(kept, source.astype(np.float32))
        shifts.add(silent if first else -silent)
    assert shifts == {-3, -2, -1, 0, 1, 2, 3}
    assert (made()[0] == made()[0]).all() and (made()[0] != made(seed=1)[0]).any()


def test_values_that_are_no_numbers_name_the_clip(clips_dir, same_network, tmp_path, monkeypatch):
    shutil.copytree(clips_dir, tmp_path / "clips")
    spec, ids = layout.read_spec(str(clips_dir)), []

    def spoil(record):
        clip, array = schema.decode_clip(record, spec)
        ids.append(clip.id)
        return records.encode_example(
            {**records.decode_example(record), spec.array.name: np.full_like(array, np.nan).tobytes()}
        )

    edit_shard(tmp_path / "clips", "validation", spoil)
    with pytest.raises(DatasetError, match=f"log-mel of {ids[0]}"):
        cache(tmp_path / "clips", tmp_path / "f", like=same_network)

    def one_spoiled(self, batches):
        for batch in batches:
            features = np.zeros((len(batch), 3, 3, 1536), np.float32)
            features[1, 2, 2, 7] = np.inf
            yield features

    monkeypatch.setattr(Extractor, "__call__", one_spoiled)
    second = clips.load_split(str(clips_dir), spec, "train").clips[1].id
    with pytest.raises(DatasetError, match=f"features of {second}"):
        cache(clips_dir, tmp_path / "f2", like=same_network)
    assert not layout.is_complete(str(tmp_path / "f")) and not layout.is_complete(str(tmp_path / "f2"))


def test_a_full_disk_ends_the_job_and_its_threads(clips_dir, same_network, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Unfinished, "write_shard", full)
    before = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        cache(clips_dir, tmp_path / "f", like=same_network)
    assert threading.active_count() == before and not layout.is_complete(str(tmp_path / "f"))


def test_an_error_on_the_other_thread_is_raised_here():
    def two_and_an_error():
        yield from (1, 2)
        raise DatasetError("shard 3 is damaged")

    found = []
    with pytest.raises(DatasetError, match="shard 3"), ahead(two_and_an_error(), max_waiting=1) as items:
        found.extend(iter(items.__next__, None))
    assert found == [1, 2] or not found


def test_a_device_that_computes_otherwise_is_found_out(clips_dir, same_network, tmp_path, monkeypatch):
    embed = Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", lambda self, batches: (1.01 * batch for batch in embed(self, batches)))
    with pytest.raises(DatasetError, match="not declared complete: 8 clips computed anew differ by 0.01 of"):
        cache(clips_dir, tmp_path / "f", like=same_network)
    assert not layout.is_complete(str(tmp_path / "f"))


def test_verify_computes_features_anew(features_dir, melcache, tmp_path):
    """A dataset whose every shard is as its spec says, with features that are not the network's."""
    copy = tmp_path / "f"
    shutil.copytree(features_dir, copy)
    spec = layout.read_spec(str(copy))

    def wrong(record):
        return schema.exchange_array(record, spec.array, 1.1 * schema.decode_array(record, spec.array), spec.array)

    for split in spec.splits:
        edit_shard(copy, split, wrong)
    done = melcache("verify", copy, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and not told["ok"] and all(shard["ok"] for shard in told["shards"])
    assert "computed anew differ by" in told["problems"][0] and told["parity"]["relative_rms"] > 0.01
    done = melcache("verify", copy, "--json", "--noparity")
    assert done.returncode == 0 and json.loads(done.stdout)["parity_unchecked"] == "left out by --noparity"
    done = melcache("verify", copy, "--data=/nowhere")
    assert done.returncode == 0 and "features were not computed anew: no dataset at /nowhere" in done.stdout
