"""`melcache doctor`: what it finds on this machine and in places that are well, missing, closed or read-only."""

import os
import pathlib

import pytest


def by_name(told):
    return {check["name"]: check for check in told["checks"]}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Environment variables that let TensorFlow's import fail at once, as where it does not fit the machine."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tensorflow.py").write_text("raise ImportError('no such library')")
    return {"PYTHONPATH": str(folder)}


def test_this_machine_has_what_the_tests_need(melcache):
    done = melcache("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok  Python: 3.1") and lines[-1] == "all that is needed is there"
    for words in ("ok  packages for prepare: apache-beam ", "decodes wav, flac, ogg, opus, aiff, mp3",
                  "ok  TensorFlow: 2.", "devices: CPU 0", "GiB free at ", "ImageNet weights: "):  # fmt: skip
        assert words in done.stdout, words


def test_absent_weights_are_told_and_are_no_failure(quick, melcache_json, tmp_path):
    told = melcache_json("doctor", env={"KERAS_HOME": str(tmp_path), **quick})
    weights = by_name(told)["ImageNet weights"]
    assert told["ok"] and not weights["ok"] and "--weights=random" in weights["fix"]
    assert all(set(check) >= {"name", "ok", "detail", "fix"} for check in told["checks"])


def test_a_machine_without_tensorflow_is_told_so(quick, melcache):
    done = melcache("doctor", env=quick)
    assert done.returncode == 0 and "--  TensorFlow: can't be imported (no such library)" in done.stdout, done.stdout


@pytest.mark.parametrize("prefix", ["", "/not/there/yet"])
def test_a_good_bucket_is_left_as_it_was(prefix, bucket, quick, melcache_json):
    bucket.write("notes/a.wav", b"x")
    told = melcache_json("doctor", f"--bucket={bucket.url}{prefix}", env={**bucket.env, **quick})
    assert told["ok"]
    checks = by_name(told)
    for name in ("list", "write", "read", "delete"):
        assert checks[f"{name} {bucket.url}{prefix}"]["ok"]
    assert "project test" in checks["Google account"]["detail"]
    assert bucket.files() == {"notes/a.wav": b"x"}


def test_a_bucket_that_does_not_exist_fails(bucket, quick, melcache):
    done = melcache("doctor", "--bucket=gs://no-such-bucket/data", env={**bucket.env, **quick})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "NO  list gs://no-such-bucket/data: no such file or bucket\n    correct the name" in done.stdout


def test_a_bucket_that_denies_access_names_the_role(refusing_store, quick, melcache):
    done = melcache("doctor", "--bucket=gs://others", env={**refusing_store(403), **quick})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for name in ("list", "write"):
        assert f"NO  {name} gs://others: access is denied (so said the store)" in done.stdout, done.stdout
    assert "roles/storage.objectAdmin" in done.stdout and "gcloud auth application-default login" in done.stdout


def test_a_local_directory_is_left_as_it_was(quick, melcache, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    done = melcache("doctor", f"--bucket={tmp_path}", env=quick)
    assert done.returncode == 0, done.stdout
    assert f"ok  list {tmp_path}: 1 names" in done.stdout and f"ok  delete {tmp_path}" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_directory_that_can_not_be_written_fails(quick, melcache, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    place = tmp_path
    if os.geteuid() == 0:  # permissions do not hold root up; the kernel's own directory does
        place = pathlib.Path("/proc")
    else:
        tmp_path.chmod(0o555)
    done = melcache("doctor", f"--bucket={place}", env=quick)
    assert done.returncode == 1 and f"NO  write {place}: " in done.stdout, done.stdout
    assert "choose a directory that you may read and write" in done.stdout
