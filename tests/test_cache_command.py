"""`melcache cache`: cached features are the live network's, and bad input is named."""

import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from model import backbone as backbones
from tfdata import clips as clip_streams
from tfdata import layout

ROOT = pathlib.Path(__file__).parent.parent


def test_cached_features_are_the_live_networks(clips_dir, features_dir):
    clips, features = layout.read_spec(str(clips_dir)), layout.read_spec(str(features_dir))
    network = backbones.build_backbone(features.settings["image"]["size"])
    backbones.randomise(network, features.settings["weights"]["seed"])
    backbones.set_batch_norm_statistics(network, np.load(features_dir / "batch_norm.npz"))
    # Seed and statistics are all there is to know of random weights.
    assert backbones.weights_digest(network) == features.settings["weights"]["digest"]

    assert features.array.shape == (3, 3, 1536) and features.array.dtype == "float16"
    image = backbones.ImageSettings(**features.settings["image"])
    log_mel = clips.statistics["splits"]["train"]["log_mel"]
    assert (image.low, image.high) == (log_mel["min"], log_mel["max"])
    for split in clips.splits:
        ours = clip_streams.load_split(str(clips_dir), clips, split)
        theirs = clip_streams.load_split(str(features_dir), features, split)
        assert theirs.clips == ours.clips
        live = network(backbones.LateImage(image)(ours.array.astype(np.float32)), training=False).numpy()
        np.testing.assert_allclose(theirs.array, live, atol=2e-3, rtol=2e-3)  # float16
        assert theirs.array.std() > 0.1


def test_the_spec_names_parent_and_weights(clips_dir, features_dir):
    clips, features = layout.read_spec(str(clips_dir)), layout.read_spec(str(features_dir))
    assert features.parent["fingerprint"] == clips.fingerprint
    assert features.settings["weights"]["source"] == "random" and len(features.settings["weights"]["digest"]) == 64
    assert features.class_names == clips.class_names
    assert {n: s.shard_lengths for n, s in features.splits.items()} == {
        n: s.shard_lengths for n, s in clips.splits.items()
    }


def test_tensorflow_datasets_reads_features(features_dir):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(features_dir))
    spec = layout.read_spec(str(features_dir))
    ours = clip_streams.load_split(str(features_dir), spec, "test")
    theirs = list(tfds.as_numpy(builder.as_dataset(split="test", shuffle_files=False)))
    np.testing.assert_array_equal(np.stack([example["feature"] for example in theirs]), ours.array)
    assert [int(example["label"]) for example in theirs] == ours.labels.tolist()


def test_a_killed_run_is_continued_to_the_same_bytes(clips_dir, features_dir, same_network, melcache, tmp_path):
    """SIGKILL when five shards stand; other settings are refused, the same command makes the rest."""
    output = tmp_path / "f"
    # The batch size is that of features_dir: another one may round otherwise.
    flags = [f"--data={clips_dir}", f"--output={output}", f"--like={same_network}", "--batch_size=8"]
    killed_at_the_sixth = f"""
import os, signal
from launch import command
from tfdata.unfinished import Unfinished
write, count = Unfinished.write_shard, []
def write_or_die(*arguments, **options):
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    count.append(write(*arguments, **options))
Unfinished.write_shard = write_or_die
command.run("cache", {flags!r})
"""
    killed = subprocess.run([sys.executable, "-c", killed_at_the_sixth], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    written = {path.name: path.stat().st_mtime_ns for path in output.glob("features-*")}
    shards = sorted(features_dir.glob("features-*"))
    assert len(written) == 5 < len(shards) and not (output / "COMPLETED").exists()

    refused = melcache("cache", f"--data={clips_dir}", f"--output={output}", "--weights=random", "--seed=1")
    assert refused.returncode == 1 and "weights.seed=0, this one has weights.seed=1" in refused.stderr
    done = melcache("cache", *flags)
    assert done.returncode == 0, done.stderr
    for shard in shards:
        assert (output / shard.name).read_bytes() == shard.read_bytes(), shard.name
    assert (output / "COMPLETED").read_text() == (features_dir / "COMPLETED").read_text()
    assert all((output / name).stat().st_mtime_ns == time_ns for name, time_ns in written.items())


def test_a_damaged_shard_of_clips_is_named(clips_dir, melcache, tmp_path):
    shutil.copytree(clips_dir, tmp_path / "clips")
    shard = sorted((tmp_path / "clips").glob("log_mel-train*"))[2]
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    done = melcache("cache", f"--data={tmp_path}/clips", f"--output={tmp_path}/f", "--weights=random")
    assert (
        done.returncode == 1
        and f"{shard} is damaged: record 0 at byte 0" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_without_a_network_imagenet_is_an_error_that_says_what_to_do(clips_dir, melcache, tmp_path):
    closed = {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = melcache("cache", f"--data={clips_dir}", f"--output={tmp_path}/f", "--json", env=closed)
    assert done.returncode == 1 and done.stdout == ""
    assert "ImageNet weights can't be had" in done.stderr and "--weights=PATH" in done.stderr
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "arguments, status, expected",
    [
        (["--output={out}"], 2, "--data must be given"),
        (["--data=/nowhere", "--output={out}"], 1, "no dataset at /nowhere"),
        (["--data={features}", "--output={out}"], 1, "holds features, expected log_mel"),
        (["--data={clips}", "--output={features}"], 1, "is already complete"),
        (["--data={clips}", "--output={clips}/.."], 1, "not empty"),
        (["--data={clips}", "--output={out}", "--weights=/nowhere.h5"], 1, "/nowhere.h5: no such file"),
        (["--data={clips}", "--output={out}", "--batch_size=0"], 2, "batch_size"),
        (
            ["--data={clips}", "--output={out}", "--strategy=tpu"],
            1,
            "no TPU is here (libtpu is not installed), only CPU:0",
        ),
        (["--data={clips}", "--output={out}", "--like={features}", "--pooled"], 1, "--pooled=True contradicts --like="),
    ],
)
def test_bad_command_lines_fail_in_one_line(arguments, status, expected, clips_dir, features_dir, melcache, tmp_path):
    places = {"clips": clips_dir, "features": features_dir, "out": tmp_path / "out"}
    done = melcache("cache", "--quiet", *(argument.format(**places) for argument in arguments))
    assert done.returncode == status and expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
