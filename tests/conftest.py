"""What the tests share: a tiny orchestra, datasets made from it by the commands themselves, and the real recordings."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from beam_workers import portable_runner  # noqa: F401  (a fixture)
from object_store import bucket, object_store, refusing_store  # noqa: F401  (fixtures)

ROOT = pathlib.Path(__file__).parent.parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def recordings_dir():
    """Real recordings that are not part of the project: MELCACHE_TEST_DATA, or shared/data beside the checkout."""
    folder = pathlib.Path(os.environ.get("MELCACHE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "notes.csv").exists():
        pytest.skip(f"no real recordings at {folder} (set MELCACHE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def melcache():
    """Runs `python -m launch ARGUMENTS` as a user would; returns the finished process."""

    def run(*arguments, env=None, timeout_s=300):
        return subprocess.run(
            [sys.executable, "-m", "launch", *map(str, arguments)],
            cwd=ROOT, env={**os.environ, **(env or {})}, timeout=timeout_s, capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def melcache_json(melcache):
    """Runs a command with --json that must succeed; returns what it printed, parsed."""

    def run(name, *arguments, **options):
        done = melcache(name, "--json", *arguments, **options)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()  # one line and nothing else
        return json.loads(line)

    return run


@pytest.fixture(scope="session")
def orchestra(tmp_path_factory):
    """A folder with a dozen notes of three instruments in folders, three broken files among them, and notes.csv."""
    from launch.orchestra import write_orchestra

    folder = tmp_path_factory.mktemp("orchestra")
    write_orchestra(str(folder), num_pitches=4, seed=0, instruments=("cello", "flute", "oboe"), dynamics=("mf",))
    return folder


@pytest.fixture(scope="session")
def clips_dir(orchestra, melcache_json, tmp_path_factory):
    """The clip dataset that `melcache prepare` makes of the orchestra's manifest."""
    output = tmp_path_factory.mktemp("clips") / "dataset"
    melcache_json("prepare", f"--manifest={orchestra}/notes.csv", "--group=group", f"--output={output}",
                  "--max_reject_fraction=0.3")  # fmt: skip
    return output


@pytest.fixture(scope="session")
def features_dir(clips_dir, melcache_json, tmp_path_factory):
    """The feature dataset that `melcache cache` makes of it, with random weights."""
    output = tmp_path_factory.mktemp("features") / "dataset"
    melcache_json("cache", f"--data={clips_dir}", f"--output={output}", "--weights=random", "--batch_size=8")
    return output


@pytest.fixture(scope="session")
def same_network(features_dir, tmp_path_factory):
    """The same dataset as melcache wrote it up to schema version 2: for --like it tells its network, but not what its
    clips were made with, so that nothing is taken from it."""
    folder = tmp_path_factory.mktemp("older") / "dataset"
    shutil.copytree(features_dir, folder)
    spec = json.loads((folder / "spec.json").read_text())
    del spec["parity"]
    spec["schema_version"] = 2
    spec["parent"] = {name: spec["parent"][name] for name in ("fingerprint", "path")}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture(scope="session")
def run_dir(clips_dir, features_dir, melcache_json, tmp_path_factory):
    """The run that `melcache heads` makes of it: two setups, two seeds, three epochs, and the baselines."""
    output = tmp_path_factory.mktemp("heads") / "run"
    melcache_json("heads", f"--features={features_dir}", f"--data={clips_dir}", f"--output={output}",
                  "--setups=setup1,setup4", "--seeds=2", "--epochs=3")  # fmt: skip
    return output
