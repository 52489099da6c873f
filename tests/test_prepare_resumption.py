"""A prepare job that is killed, started twice, or continued with something else than it was begun with."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soundfile

from beam_preprocess import workspace
from beam_preprocess.prepare import prepare
from beam_preprocess.settings import PrepareSettings, SplitSettings, WindowSettings
from tfdata import layout, storage

ROOT = pathlib.Path(__file__).parent.parent
# The command, in parts of two recordings, and slow enough to be killed in each of its phases.
SMALL_PARTS = """
import sys, time
from beam_preprocess import clip_encoder, pipeline, workspace
workspace.MAX_RECORDINGS_PER_PART = 2
encode, write = clip_encoder.ClipEncoder.__call__, workspace.Workspace.write_shard
def slow_encode(self, recording):
    time.sleep(0.03)
    yield from encode(self, recording)
def slow_write(self, *args, **kwargs):
    time.sleep(0.03)
    write(self, *args, **kwargs)
clip_encoder.ClipEncoder.__call__, workspace.Workspace.write_shard = slow_encode, slow_write
from launch.__main__ import main
sys.argv[0] = "melcache"
sys.exit(main())
"""


def files(directory):
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir() if path.name != layout.SPEC}


def same_dataset(one, other):
    """Equal bytes, but for the command line that the spec tells."""
    return files(one) == files(other) and (
        layout.read_spec(str(one)).fingerprint == layout.read_spec(str(other)).fingerprint
    )


def start(orchestra, output, *more):
    command = [sys.executable, "-c", SMALL_PARTS, "prepare", f"--input={orchestra}", f"--output={output}",
               "--max_reject_fraction=0.3", *more]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


@pytest.mark.parametrize("more", [[], ["--windows=all", "--hop_s=0.25", "--clip_s=0.5", "--folds=2", "--split=stable"]])
def test_killed_at_any_moment_it_ends_as_if_undisturbed(orchestra, tmp_path, more):
    assert start(orchestra, tmp_path / "whole", *more).wait() == 0
    killed, unfinished = tmp_path / "killed", tmp_path / "killed" / "unfinished"

    def count(pattern):
        return len(list(unfinished.glob(pattern)))

    moments = [
        lambda: (unfinished / "job.json").exists(),
        lambda: count("part-*.jsonl") >= 2,
        lambda: count("part-*.jsonl") >= 5,
        lambda: count("shards/*") >= 1,
        lambda: count("shards/*") >= 4,
    ]
    for moment in moments:
        process = start(orchestra, killed, *more)
        wait_until(moment, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / layout.COMPLETED).exists()
    # What a kill leaves of a file that was being written.
    (killed / f"log_mel-test.tfrecord-00000-of-00003.0123{storage._TEMPORARY}").write_text("torn")
    assert start(orchestra, killed, *more).wait() == 0
    assert same_dataset(tmp_path / "whole", killed)


def test_a_killed_worker_process_loses_nothing(orchestra, tmp_path):
    assert start(orchestra, tmp_path / "whole").wait() == 0
    beam = ["--", "--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    process = start(orchestra, tmp_path / "killed", *beam)
    wait_until(lambda: list((tmp_path / "killed" / "unfinished").glob("part-*.jsonl")), process)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if workers:
        os.kill(int(workers[0]), signal.SIGKILL)
    try:
        process.wait(30)  # the runner may or may not notice that a worker is gone
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if not layout.is_complete(str(tmp_path / "killed")):
        assert start(orchestra, tmp_path / "killed").wait() == 0
    assert same_dataset(tmp_path / "whole", tmp_path / "killed")


def test_the_second_job_in_a_directory_stops_with_a_message(orchestra, melcache, tmp_path):
    first = start(orchestra, tmp_path / "d")
    wait_until(lambda: (tmp_path / "d" / "unfinished" / "job.json").exists(), first)
    first.send_signal(signal.SIGSTOP)  # it must not be done before the second has begun
    second = melcache("prepare", f"--input={orchestra}", f"--output={tmp_path}/d", "--max_reject_fraction=0.3")
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"another job is writing to {tmp_path}/d (process {first.pid} on " in second.stderr
    assert first.wait() == 0 and layout.is_complete(str(tmp_path / "d"))


def interrupted(orchestra, output, monkeypatch, **arguments):
    """A job that ends after its first part."""
    monkeypatch.setattr(workspace, "MAX_RECORDINGS_PER_PART", 4)
    write_lines = workspace.Workspace.write_lines

    def die(self, part, lines):
        if part != "part-00000":
            raise OSError("the disk is full")
        write_lines(self, part, lines)

    monkeypatch.setattr(workspace.Workspace, "write_lines", die)
    with pytest.raises(ValueError, match="the disk is full.*the same command continues"):
        prepare(output=output, input_path=str(orchestra), beam_args=["--runner=FnApiRunner"], show_progress=False,
                **arguments)  # fmt: skip
    monkeypatch.setattr(workspace.Workspace, "write_lines", write_lines)


@pytest.mark.parametrize(
    "settings, difference",
    [
        (PrepareSettings(split=SplitSettings(seed=1)), "split.seed=0, this one has split.seed=1"),
        (PrepareSettings(windows=WindowSettings(max_windows=None)), "windows.max_windows=1, .*=None"),
        (PrepareSettings(precision="float32"), "precision=float16, this one has precision=float32"),
    ],
)
def test_other_settings_are_refused_by_name(orchestra, tmp_path, monkeypatch, settings, difference):
    interrupted(orchestra, f"{tmp_path}/d", monkeypatch, settings=PrepareSettings())
    with pytest.raises(ValueError, match=difference):
        prepare(output=f"{tmp_path}/d", input_path=str(orchestra), settings=settings, show_progress=False)


def test_changed_inputs_are_refused_by_name(orchestra, tmp_path, monkeypatch):
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    arguments = {"settings": PrepareSettings(), "max_reject_fraction": 0.5}
    interrupted(folder, f"{tmp_path}/d", monkeypatch, **arguments)
    note = next((folder / "oboe").glob("oboe_*.wav"))
    before = note.read_bytes(), note.stat().st_mtime_ns

    def go_on():
        return prepare(output=f"{tmp_path}/d", input_path=str(folder), show_progress=False, **arguments)

    note.write_bytes(before[0] + b"more")
    with pytest.raises(ValueError, match=f"oboe/{note.name} was changed"):
        go_on()
    note.unlink()
    with pytest.raises(ValueError, match=f"oboe/{note.name} is gone"):
        go_on()
    note.write_bytes(before[0])
    os.utime(note, ns=(before[1], before[1]))
    (folder / "oboe" / "new.wav").write_bytes(before[0])
    with pytest.raises(ValueError, match="oboe/new.wav is new"):
        go_on()
    (folder / "oboe" / "new.wav").unlink()
    assert go_on().num_clips == 12


def mended(orchestra, tmp_path):
    """A copy of the orchestra, and the name of a recording that can't be used, with what would mend it."""
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    (folder / "notes.csv").unlink()
    note = next((folder / "oboe").glob("oboe_*.wav"))
    samples = soundfile.read(note)[0][::-1]
    return folder, lambda: soundfile.write(folder / "flute" / "no_audio.wav", samples, 44_100)


@pytest.mark.parametrize(
    "more", [["--folds=2"], ["--windows=2", "--clip_s=0.4", "--split=stable", "--silence_dbfs=-70"]]
)
def test_retried_rejects_give_the_dataset_of_the_mended_inputs(orchestra, melcache, melcache_json, tmp_path, more):
    folder, mend = mended(orchestra, tmp_path)
    command = ["prepare", f"--input={folder}", "--max_reject_fraction=0.3", *more]
    melcache_json(*command, f"--output={tmp_path}/d")
    before = layout.read_spec(f"{tmp_path}/d")
    mend()
    (folder / "oboe" / "empty.mp3").unlink()
    soundfile.write(
        folder / "cello" / "new.wav", soundfile.read(next((folder / "cello").glob("cello_*")))[0] / 2, 44_100
    )
    told = melcache_json(*command, f"--output={tmp_path}/d", "--retry_rejects")
    assert told["num_recordings"] == before.num_recordings + 2 and told["num_rejects"] == 1
    melcache_json(*command, f"--output={tmp_path}/anew")
    assert files(f"{tmp_path}/d") == files(f"{tmp_path}/anew")
    ours, theirs = layout.read_spec(f"{tmp_path}/d"), layout.read_spec(f"{tmp_path}/anew")
    assert (ours.fingerprint, ours.statistics, ours.splits) == (theirs.fingerprint, theirs.statistics, theirs.splits)


def test_retrying_is_refused_with_other_settings_or_lost_recordings_and_keeps_all(orchestra, melcache, tmp_path):
    folder, _ = mended(orchestra, tmp_path)
    command = ["prepare", f"--input={folder}", "--max_reject_fraction=0.3", f"--output={tmp_path}/d"]
    assert melcache(*command).returncode == 0
    before = files(f"{tmp_path}/d")
    other = melcache(*command, "--retry_rejects", "--n_fft=1024")
    assert (
        other.returncode == 1
        and "was made with log_mel.n_fft=2048, this command has log_mel.n_fft=1024" in other.stderr
    )
    assert files(f"{tmp_path}/d") == before
    note = next((folder / "oboe").glob("oboe_*.wav"))
    content = note.read_bytes()
    note.unlink()
    lost = melcache(*command, "--retry_rejects")
    assert lost.returncode == 1 and f"the clips of oboe/{note.name}" in lost.stderr and "it is gone" in lost.stderr
    note.write_bytes(content)
    assert melcache(*command, "--retry_rejects").returncode == 0
    assert files(f"{tmp_path}/d") == before


def test_after_too_many_rejects_only_those_are_decoded_again(orchestra, melcache, tmp_path):
    folder, mend = mended(orchestra, tmp_path)
    command = ["prepare", f"--input={folder}", f"--output={tmp_path}/d"]
    assert melcache(*command).returncode == 1
    mend()
    (folder / "oboe" / "empty.mp3").unlink()
    done = melcache(*command, "--retry_rejects")
    assert done.returncode == 0 and "0/2 [00:00" in done.stderr, done.stderr
    anew = melcache("prepare", f"--input={folder}", f"--output={tmp_path}/anew")
    assert anew.returncode == 0 and files(f"{tmp_path}/d") == files(f"{tmp_path}/anew")
