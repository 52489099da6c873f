"""Every command with gs:// in and out, against an object store's emulator on this machine."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tfdata import layout

ROOT = pathlib.Path(__file__).parent.parent


def shards(files):
    return {name: content for name, content in files.items() if ".tfrecord-" in name}


def local_files(directory):
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir() if path.is_file()}


def test_prepare_from_a_bucket_into_a_bucket_gives_the_bytes_of_a_local_job(
    bucket, orchestra, clips_dir, melcache_json
):
    notes = bucket.upload(orchestra, "notes")
    command = ["prepare", f"--manifest={notes}/notes.csv", "--group=group", f"--output={bucket.url}/my/clips"]
    told = melcache_json(*command, "--max_reject_fraction=0.3", env=bucket.env)
    assert told["num_clips"] == 12 and told["output"] == f"{bucket.url}/my/clips"
    made, local = bucket.files("my/clips"), local_files(clips_dir)
    assert shards(made) == shards(local) and made.keys() == local.keys()
    assert made["COMPLETED"] == local["COMPLETED"]  # the fingerprint
    # Broken files are rejected by name, for the reasons they have on a local disk.
    assert made["rejects.jsonl"] == local["rejects.jsonl"]
    rejects = [json.loads(line) for line in made["rejects.jsonl"].splitlines()]
    assert {reject["path"] for reject in rejects} == {"cello/not_numbers.wav", "flute/no_audio.wav", "oboe/empty.mp3"}
    # A recording costs one request, which is what reading a million of them takes and costs.
    asked = bucket.requests("notes/cello/cello_36_mf.wav")
    assert [request.split("/")[1] for request in asked if request.startswith("GET")] == ["download"], asked


def test_prepare_takes_folders_and_globs_of_a_bucket(bucket, orchestra, melcache_json, tmp_path):
    notes = bucket.upload(orchestra, "notes")
    folder = melcache_json(
        "prepare", f"--input={notes}", f"--output={tmp_path}/folder", "--max_reject_fraction=0.3", env=bucket.env
    )
    assert (folder["num_clips"], folder["num_rejects"]) == (12, 4)  # notes.csv stands outside a class folder
    matched = melcache_json("prepare", f"--input={notes}/*/*_*_mf.*", f"--output={bucket.url}/matched", env=bucket.env)
    assert (matched["num_clips"], matched["num_rejects"]) == (12, 0)


def test_a_job_started_again_goes_on_to_the_same_bytes(bucket, orchestra, clips_dir, melcache, tmp_path):
    """Too many are rejected and the job ends; with a higher limit it takes up what was decoded."""
    bucket.upload(orchestra, "notes")
    command = ["prepare", f"--manifest={bucket.url}/notes/notes.csv", "--group=group", f"--output={bucket.url}/clips"]
    refused = melcache(*command, env=bucket.env)
    assert refused.returncode == 1 and "flute/no_audio.wav: decode: " in refused.stderr
    assert "COMPLETED" not in bucket.files("clips")
    went_on = melcache(*command, "--max_reject_fraction=0.3", env=bucket.env)
    assert went_on.returncode == 0 and "continuing an interrupted job" in went_on.stderr, went_on.stderr
    assert shards(bucket.files("clips")) == shards(local_files(clips_dir))
    again = melcache(*command, "--max_reject_fraction=0.3", env=bucket.env)
    assert again.returncode == 1 and f"{bucket.url}/clips is already complete" in again.stderr


def test_an_object_changed_during_an_interruption_is_named(bucket, orchestra, melcache):
    bucket.upload(orchestra, "notes")
    command = ["prepare", f"--manifest={bucket.url}/notes/notes.csv", "--group=group", f"--output={bucket.url}/clips"]
    assert melcache(*command, env=bucket.env).returncode == 1
    bucket.remove("clips/unfinished/parked")  # as if it had been cut off
    bucket.write("notes/flute/no_audio.wav", b"other words")
    refused = melcache(*command, "--max_reject_fraction=0.3", env=bucket.env)
    assert refused.returncode == 1 and "since it was begun flute/no_audio.wav was changed" in refused.stderr


def test_rejects_of_a_finished_dataset_in_a_bucket_are_tried_again(bucket, orchestra, melcache_json, tmp_path):
    bucket.upload(orchestra, "notes")
    command = ["prepare", f"--manifest={bucket.url}/notes/notes.csv", "--group=group", "--max_reject_fraction=0.3"]
    told = melcache_json(*command, f"--output={bucket.url}/clips", env=bucket.env)
    assert told["num_rejects"] == 3
    mended = next(orchestra.glob("flute/flute_*.flac")).read_bytes()
    bucket.write("notes/flute/no_audio.wav", mended)  # the same audio once more
    told = melcache_json(*command, f"--output={bucket.url}/clips", "--retry_rejects", env=bucket.env)
    assert (told["num_recordings"], told["num_rejects"]) == (13, 2)
    melcache_json(*command, f"--output={tmp_path}/anew", env=bucket.env)
    made, anew = bucket.files("clips"), local_files(tmp_path / "anew")
    assert shards(made) == shards(anew) and made["COMPLETED"] == anew["COMPLETED"]
    assert melcache_json("verify", f"{bucket.url}/clips", env=bucket.env)["ok"]


def test_a_second_job_is_refused_while_the_first_renews_its_lease(bucket, orchestra, melcache):
    command = ["prepare", f"--manifest={orchestra}/notes.csv", f"--output={bucket.url}/d", "--max_reject_fraction=0.3"]
    lease = {"host": "elsewhere", "pid": 7, "token": "another", "time": time.time()}
    bucket.write("d/unfinished/lock", json.dumps(lease).encode())
    refused = melcache(*command, env=bucket.env)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert f"another job is writing to {bucket.url}/d (process 7 on elsewhere)" in refused.stderr
    assert re.search(r"if it was killed, the same command goes on in \d+ s", refused.stderr)
    bucket.write("d/unfinished/lock", json.dumps({**lease, "time": time.time() - 100}).encode())
    assert melcache(*command, env=bucket.env).returncode == 0
    assert "d/unfinished/lock" not in bucket.files() and "COMPLETED" in bucket.files("d")


def test_cache_heads_and_report_in_a_bucket(bucket, clips_dir, features_dir, melcache_json, tmp_path):
    clips = bucket.upload(clips_dir, "clips")
    features, run, copies = f"{bucket.url}/features", f"{bucket.url}/run", tmp_path / "copies"
    # A shard of each split is there already, as an interrupted run leaves it: the others are made, and to match.
    spec = layout.read_spec(str(features_dir))
    identity = {"data": spec.parent["fingerprint"], "precision": "float16", **spec.settings}
    bucket.write("features/unfinished/job.json", json.dumps(identity).encode())
    bucket.write("features/unfinished/batch_norm.npz", (features_dir / "batch_norm.npz").read_bytes())
    parent = layout.read_spec(str(clips_dir))
    for split, info in spec.splits.items():
        path, digest = layout.shard_paths(str(features_dir), spec, split)[0], info.shard_digests[0]
        content = pathlib.Path(path).read_bytes()
        note = {
            "content": parent.splits[split].shard_digests[0],
            "digest": digest,
            "num_bytes": len(content),
            "num_clips": info.shard_lengths[0],
        }
        bucket.write(f"features/{pathlib.Path(path).name}", content)
        bucket.write(f"features/unfinished/shards/{pathlib.Path(path).name}", json.dumps(note).encode())
    command = ["cache", f"--data={clips}", f"--output={features}", "--weights=random", "--batch_size=8"]
    melcache_json(*command, f"--local_cache_dir={copies}", env=bucket.env)
    made, local = bucket.files("features"), local_files(features_dir)
    assert shards(made) == shards(local) and made["COMPLETED"] == local["COMPLETED"]
    staged = {path.name: path.read_bytes() for path in copies.rglob("*") if path.is_file()}
    assert staged == shards(local_files(clips_dir))

    command = ["heads", f"--features={features}", f"--output={run}", "--setups=setup1", "--seeds=1", "--epochs=1"]
    told = melcache_json(*command, env=bucket.env)
    assert [row["name"] for row in told["baselines"]] == [
        f"{name}, {of}" for of in ("raw log-mel", "features") for name in ("logistic regression", "ridge")
    ]
    assert {"heads.json", "setup1/seed0/head.keras", "setup1/seed0/result.json"} <= bucket.files("run").keys()
    assert melcache_json("report", f"--run={run}", env=bucket.env)["output"] == f"{run}/report.html"
    assert b"<svg" in bucket.read("run/report.html")


NO_BUCKET = {
    "input": ["prepare", "--input=gs://no-such-bucket/notes", "--output={bucket}/out"],
    "manifest": ["prepare", "--manifest=gs://no-such-bucket/notes.csv", "--output={bucket}/out"],
    "output": ["prepare", "--input={notes}", "--output=gs://no-such-bucket/out", "--max_reject_fraction=0.5"],
    "clips": ["cache", "--data=gs://no-such-bucket/clips", "--output={bucket}/out", "--weights=random"],
    "features": ["heads", "--features=gs://no-such-bucket/features", "--output={bucket}/out"],
    "run": ["report", "--run=gs://no-such-bucket/run"],
    "report": ["report", "--run={run}", "--output=gs://no-such-bucket/report.html"],
}


@pytest.mark.parametrize("case", NO_BUCKET)
def test_a_bucket_that_does_not_exist_is_named_in_one_sentence(case, bucket, orchestra, run_dir, melcache):
    started = time.monotonic()
    places = {"bucket": bucket.url, "notes": orchestra, "run": run_dir}
    done = melcache(*(argument.format(**places) for argument in NO_BUCKET[case]), "--quiet", env=bucket.env)
    assert done.returncode == 1 and "gs://no-such-bucket" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert time.monotonic() - started < 30  # no round of retries
    assert bucket.files() == {}


@pytest.mark.parametrize(
    "status, expected",
    [(403, "access is denied.*roles/storage.objectViewer"), (401, "gcloud auth application-default")],
)
def test_what_a_store_refuses_is_told_with_what_to_do(status, expected, refusing_store, run_dir, melcache, tmp_path):
    env = refusing_store(status)
    for command in (
        ["prepare", "--input=gs://others/notes", f"--output={tmp_path}/out"],
        ["report", f"--run={run_dir}", "--output=gs://others/report.html"],
    ):
        done = melcache(*command, env=env)
        assert done.returncode == 1 and re.search(f"gs://others/.*{expected}", done.stderr), done.stderr
        assert "Traceback" not in done.stderr and "so said the store" in done.stderr


def test_two_processes_copy_a_bucket_once_whole_and_then_not_at_all(bucket, tmp_path):
    code = "import sys; from tfdata import staging; print(*staging.stage(sys.argv[2:], sys.argv[1]), sep='\\n')"
    contents = {f"data/shard-{index}": bytes([index]) * 300_000 for index in range(5)}
    for name, content in contents.items():
        bucket.write(name, content)

    def start():
        command = [sys.executable, "-c", code, str(tmp_path), *(f"{bucket.url}/{name}" for name in contents)]
        env = {**os.environ, **bucket.env}
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def copies(process):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return output.splitlines()

    def downloads():
        return sum(" /download/" in request for name in contents for request in bucket.requests(name))

    first, second = map(copies, [start(), start()])
    assert first == second and [pathlib.Path(copy).read_bytes() for copy in first] == list(contents.values())
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(contents)
    before = downloads()
    assert copies(start()) == first and downloads() == before
    bucket.write("data/shard-3", b"other")
    now = copies(start())
    assert downloads() == before + 1 and pathlib.Path(now[3]).read_bytes() == b"other"
    assert now[:3] + now[4:] == first[:3] + first[4:]
