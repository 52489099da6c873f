"""`melcache cache --engine=beam`: the other engine's bytes on every runner, and failures of workers in a sentence."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
from tests_support import write_manifest

from tfdata import layout, records, shards
from tfdata.spec import ArraySpec, DatasetError
from tfdata.unfinished import Unfinished

ROOT = pathlib.Path(__file__).parent.parent
CACHE = ["--weights=random", "--batch_size=8"]  # as in the fixture features_dir


def begin(features_dir, output):
    """A cache job that was cut off when the random weights were made and no shard was: the rest takes seconds."""
    spec = layout.read_spec(str(features_dir))
    folder = pathlib.Path(output) / "unfinished"
    folder.mkdir(parents=True)
    identity = {"data": spec.parent["fingerprint"], "precision": spec.array.dtype, **spec.settings}
    (folder / "job.json").write_text(json.dumps(identity))
    shutil.copy(features_dir / "batch_norm.npz", folder)


def without_spec(directory):
    """All files but the spec, which tells the engine and the command."""
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir() if path.name != "spec.json"}


def test_from_audio_by_beam_is_what_prepare_and_cache_make(orchestra, clips_dir, features_dir, melcache_json, tmp_path):
    begin(features_dir, tmp_path / "features")
    # Beam reaches its workers here by gRPC, which must not ask the proxy.
    told = melcache_json("cache", f"--manifest={orchestra}/notes.csv", "--group=group", "--max_reject_fraction=0.3",
                         f"--data={tmp_path}/clips", f"--output={tmp_path}/features", "--engine=beam", *CACHE,
                         env={"https_proxy": "http://127.0.0.1:9"})  # fmt: skip
    assert told["num_clips"] == told["prepared"]["num_clips"] == 12 and told["prepared"]["num_rejects"] == 3
    assert without_spec(tmp_path / "clips") == without_spec(clips_dir)
    assert without_spec(tmp_path / "features") == without_spec(features_dir)
    spec = layout.read_spec(str(tmp_path / "features"))
    assert spec.fingerprint == layout.read_spec(str(features_dir)).fingerprint
    assert spec.provenance["engine"] == "beam"


def test_another_engine_finishes_what_was_killed(clips_dir, features_dir, melcache_json, tmp_path):
    begin(features_dir, tmp_path / "features")
    command = [f"--data={clips_dir}", f"--output={tmp_path}/features", *CACHE]
    notes = tmp_path / "features" / "unfinished" / "shards"
    job = subprocess.Popen(
        [sys.executable, "-m", "launch", "cache", *command, "--engine=beam", "--quiet"], cwd=ROOT, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while not any(notes.glob("features-*-of-0000?")):
        assert job.poll() is None, job.communicate()
        time.sleep(0.005)
    job.kill()
    job.communicate()
    kept = {path.name: (tmp_path / "features" / path.name).stat() for path in notes.glob("features-*-of-0000?")}
    assert 0 < len(kept) < len(list(features_dir.glob("features-*")))
    melcache_json("cache", *command)
    assert without_spec(tmp_path / "features") == without_spec(features_dir)
    for name, then in kept.items():
        now = (tmp_path / "features" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (then.st_ino, then.st_mtime_ns), f"{name} was written again"


def test_workers_elsewhere_read_and_write_a_bucket(
    portable_runner, bucket, clips_dir, features_dir, melcache_json, tmp_path
):
    options, workers_log = portable_runner
    workers = workers_log.read_text().count("Starting worker")
    begin(features_dir, tmp_path / "features")
    clips = layout.read_spec(str(clips_dir))
    for split in clips.splits:  # half of the shards are there
        for shard in shards.of_split(str(clips_dir), clips, split)[::2]:
            name = shard.name.replace("log_mel", "features")
            Unfinished(str(tmp_path / "features")).write_shard(
                name, (features_dir / name).read_bytes(), num_clips=shard.num_clips, content=shard.digest
            )
    bucket.upload(tmp_path / "features", "features")
    data = bucket.upload(clips_dir, "clips")
    melcache_json("cache", f"--data={data}", f"--output={bucket.url}/features", "--engine=beam", *CACHE, "--", *options,
                  env=bucket.env)  # fmt: skip
    assert workers_log.read_text().count("Starting worker") > workers  # not in the command's own process
    made = bucket.files("features")
    del made["spec.json"]
    assert made == without_spec(features_dir)


class WithoutTensorFlow:
    """A network that pickles, and can't be unpickled where its package is not installed."""

    weights = "imagenet"

    def __reduce__(self):
        return __import__, ("no_such_package",)


@pytest.mark.parametrize(
    "network, expected",
    [
        ({"weights": "/nowhere.h5"}, "--weights=/nowhere.h5: no such file"),
        ({"weights": "random", "weights_digest": "0" * 64}, "expected 000000000000"),
        (None, "a worker lacks no_such_package"),
    ],
)
def test_what_a_worker_lacks_ends_the_job_in_a_sentence(network, expected, clips_dir, tmp_path):
    from model.backbone import ImageSettings
    from model.frozen_network import FrozenNetwork

    network = FrozenNetwork(image=ImageSettings(low=-20.0, high=5.0), **network) if network else WithoutTensorFlow()
    with pytest.raises(DatasetError) as told:
        write_features(clips_dir, tmp_path, network)
    assert expected in str(told.value) and "\n" not in str(told.value) and "on worker" in str(told.value)
    assert "the same command continues" in str(told.value) and not list(tmp_path.glob("features-*"))


def test_a_damaged_shard_of_clips_is_named_and_the_others_are_done(clips_dir, tmp_path):
    from model.backbone import ImageSettings
    from model.frozen_network import FrozenNetwork

    shutil.copytree(clips_dir, tmp_path / "clips")
    damaged = sorted((tmp_path / "clips").glob("log_mel-train*"))[2]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100] + b"?" + whole[101:])
    network = FrozenNetwork(weights="random", image=ImageSettings(low=-20.0, high=5.0))
    with pytest.raises(DatasetError, match=f"{damaged} is damaged: record 0 at byte 0.*the same command continues"):
        write_features(tmp_path / "clips", tmp_path / "features", network)
    written = {path.name for path in (tmp_path / "features").glob("features-*")}
    expected = {path.name.replace("log_mel", "features") for path in clips_dir.glob("log_mel-*")}
    assert expected - written == {damaged.name.replace("log_mel", "features")}
    damaged.write_bytes(whole)
    done = write_features(tmp_path / "clips", tmp_path / "features", network)
    assert (done.num_embedded, done.num_taken) == (1, 0)  # the damaged shard's clip alone


def test_features_that_another_dataset_holds_are_taken(clips_dir, features_dir, tmp_path):
    from launch.held_features import HeldFeatures, held_features
    from model.backbone import ImageSettings
    from model.frozen_network import FrozenNetwork

    held, _ = held_features(str(features_dir), layout.read_spec(str(features_dir)), layout.read_spec(str(clips_dir)))
    some = HeldFeatures(held.array, dict(sorted(held.places.items())[:5]))
    network = FrozenNetwork(weights="random", image=ImageSettings(low=-20.0, high=5.0))  # another one than made them
    done = write_features(clips_dir, tmp_path, network, held=some)
    assert (done.num_embedded, done.num_taken) == (7, 5)
    taken = set()
    for path in features_dir.glob("features-*"):
        for before, now in zip(*(list(records.unframe((folder / path.name).read_bytes(), where=path.name))
                                 for folder in (features_dir, tmp_path)), strict=True):  # fmt: skip
            assert records.decode_example(before)["id"] == records.decode_example(now)["id"]
            if before == now:
                taken.add(records.decode_example(now)["content_hash"].decode())
    assert taken == {content_hash for _, _, content_hash in some.places}


def write_features(data, output, network, *, held=None):
    """The library call behind the engine, on threads of this process."""
    from launch import beam_engine
    from launch.feature_shards import FeatureShards

    features = FeatureShards(
        data=str(data),
        clips=layout.read_spec(str(data)),
        array=ArraySpec(name="feature", shape=(3, 3, 1536), dtype="float16"),
        unfinished=Unfinished(str(output)),
        held=held,
    )
    job = beam_engine.pipeline_with([])
    return beam_engine.embed(network, features, job=job, strategy="cpu", batch_size=4, show_progress=False)


def change(rows, path, **values):
    return [{**row, **values} if row["path"] == path else row for row in rows]


@pytest.mark.parametrize(
    "edit, settings, expected",
    [
        (lambda rows: rows, {}, None),
        (lambda rows: rows, {"num_shards": 3}, "was made with num_shards=0, this command has num_shards=3"),
        (lambda rows: [*rows, {**rows[0], "path": "new.wav"}], {}, "new.wav is new"),
        (lambda rows: rows[1:], {}, "it is gone"),
        (lambda rows: change(rows, rows[0]["path"], label="oboe"), {}, "its label was 'cello' and is 'oboe'"),
        (lambda rows: change(rows, rows[0]["path"], group="other"), {}, "its group was .* and is 'other'"),
        (lambda rows: [{**row, "take": "1"} for row in rows], {}, "was made with metadata_columns="),
        (lambda rows: [{**row, "split": "test"} for row in rows], {}, "its split was .* and is 'test'"),
    ],
)
def test_complete_clips_are_taken_only_for_the_same_recordings_and_settings(
    edit, settings, expected, orchestra, clips_dir, tmp_path
):
    from beam_preprocess.reuse import clips_of
    from beam_preprocess.settings import PrepareSettings

    with open(orchestra / "notes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_manifest(tmp_path / "notes.csv", edit(rows))
    before = without_spec(clips_dir)
    with pytest.raises(DatasetError, match=expected) if expected else contextlib.nullcontext() as told:
        spec, made = clips_of(
            output=str(clips_dir), settings=PrepareSettings(group="group", **settings), input_path=str(orchestra),
            manifest=str(tmp_path / "notes.csv"),
        )  # fmt: skip
        assert not made and spec == layout.read_spec(str(clips_dir))
    assert not expected or "choose another --data" in str(told.value)
    assert without_spec(clips_dir) == before


@pytest.mark.parametrize(
    "arguments, status, expected",
    [
        (["--data={clips}", "--output={out}", "--", "--runner=FnApiRunner"], 2, "need --engine=beam"),
        (["--data={clips}", "--output={out}", "--n_mels=64"], 2, "--n_mels says how clips are prepared"),
        (["--data={clips}", "--output={out}", "--engine=beam", "--", "--no_such=1"], 1, "Beam has no option --no_such"),
        (["--manifest={notes}", "--data={clips}", "--output={out}"], 1, "was made with group=group, this command has"),
    ],
)
def test_bad_command_lines_fail_in_one_line(arguments, status, expected, orchestra, clips_dir, melcache, tmp_path):
    places = {"clips": clips_dir, "out": tmp_path / "out", "notes": orchestra / "notes.csv"}
    done = melcache("cache", "--quiet", *(argument.format(**places) for argument in arguments))
    assert done.returncode == status and expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not os.path.exists(tmp_path / "out")
