"""A prepare job that is killed, started twice, or continued with something else than it was begun with."""

import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soundfile
from tests_support import write_manifest

from beam_preprocess import workspace
from beam_preprocess.prepare import prepare
from beam_preprocess.settings import PrepareSettings, SplitSettings, WindowSettings
from tfdata import layout, storage
from tfdata.verify import verify

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


def descendants(pid, words):
    """The processes below `pid` whose command line holds `words`."""
    found, queue = [], [pid]
    while queue:
        children = subprocess.run(["pgrep", "-P", str(queue.pop())], capture_output=True, text=True).stdout.split()
        queue += map(int, children)
        for child in children:
            try:
                command = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except FileNotFoundError:
                continue
            found += [int(child)] if words in command and not command.startswith("/bin/sh") else []
    return found


def test_a_killed_worker_process_loses_nothing(orchestra, tmp_path):
    assert start(orchestra, tmp_path / "whole").wait() == 0
    beam = ["--", "--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    process = start(orchestra, tmp_path / "killed", *beam)
    wait_until(lambda: list((tmp_path / "killed" / "unfinished").glob("part-*.jsonl")), process)
    workers = descendants(process.pid, "sdk_worker_main")
    assert workers
    os.kill(workers[0], signal.SIGKILL)
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


def test_a_job_parked_for_rejects_begins_anew_with_mended_inputs_and_says_so(orchestra, melcache, tmp_path):
    folder, mend = mended(orchestra, tmp_path)
    command = ["prepare", f"--input={folder}", f"--output={tmp_path}/d"]
    assert melcache(*command).returncode == 1
    refused = melcache(*command, "--n_fft=1024")  # a mistyped flag does not throw away what was decoded
    assert refused.returncode == 1 and "log_mel.n_fft=2048, this one has log_mel.n_fft=1024" in refused.stderr
    other_split = melcache(*command, "--max_reject_fraction=0.001", "--split_seed=7")
    assert other_split.returncode == 1 and "continuing an interrupted job: 15 of 15" in other_split.stderr
    mend()
    (folder / "oboe" / "empty.mp3").unlink()
    done = melcache(*command)
    assert done.returncode == 0 and "flute/no_audio.wav was changed: what was decoded is dropped" in done.stderr
    anew = melcache("prepare", f"--input={folder}", f"--output={tmp_path}/anew")
    assert anew.returncode == 0 and files(f"{tmp_path}/d") == files(f"{tmp_path}/anew")


def small_parts(monkeypatch):
    monkeypatch.setattr(workspace, "MAX_RECORDINGS_PER_PART", 8)


class Fault:
    """Lets the n-th change to a file fail, as a full disk or a kill would."""

    def __init__(self, monkeypatch):
        self.left = None
        for name in ("write_bytes", "open_write", "move", "remove", "remove_tree"):
            monkeypatch.setattr(storage, name, self.failing(getattr(storage, name)))

    def failing(self, function):
        def call(*args, **kwargs):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise RuntimeError("cut off here")
            return function(*args, **kwargs)

        return call


def everywhere(monkeypatch, begun, run, check):
    """Cut a run off before each change it makes to a file; the same run again must then end well."""
    fault = Fault(monkeypatch)
    for number in itertools.count():
        output = begun(number)
        fault.left = number
        try:
            run(output)
        except Exception:
            fault.left = None
            if layout.is_complete(output):
                assert all(shard.ok for shard in verify(output).shards)
            run(output)
            check(output, number)
        else:
            fault.left = None
            check(output, number)
            return number


SETTINGS = PrepareSettings(num_shards=2, split=SplitSettings(folds=2))


def test_cut_off_before_any_change_to_a_file_it_goes_on(orchestra, tmp_path, monkeypatch):
    small_parts(monkeypatch)

    def run(output):
        if layout.is_complete(output):  # cut off while it tidied up
            return shutil.rmtree(f"{output}/unfinished")
        prepare(output=output, input_path=str(orchestra), settings=SETTINGS, max_reject_fraction=0.5,
                show_progress=False, leak_audit=False, beam_args=["--runner=FnApiRunner"])  # fmt: skip

    run(f"{tmp_path}/whole")

    def check(output, number):
        assert files(output) == files(f"{tmp_path}/whole"), number
        assert verify(output).ok

    assert everywhere(monkeypatch, lambda number: f"{tmp_path}/{number}", run, check) > 20


def test_cut_off_anywhere_a_retry_loses_nothing_and_ends_as_if_made_anew(orchestra, tmp_path, monkeypatch):
    small_parts(monkeypatch)
    folder, mend = mended(orchestra, tmp_path)

    def run(output, retry_rejects=True):
        return prepare(output=output, input_path=str(folder), settings=SETTINGS, max_reject_fraction=0.5,
                       show_progress=False, leak_audit=False, retry_rejects=retry_rejects,
                       beam_args=["--runner=FnApiRunner"])  # fmt: skip

    run(f"{tmp_path}/before", retry_rejects=False)
    mend()
    run(f"{tmp_path}/anew", retry_rejects=False)
    assert files(f"{tmp_path}/before") != files(f"{tmp_path}/anew")

    def begun(number):
        return shutil.copytree(tmp_path / "before", tmp_path / str(number)).as_posix()

    def check(output, number):
        assert files(output) == files(f"{tmp_path}/anew"), number
        ours, theirs = layout.read_spec(output), layout.read_spec(f"{tmp_path}/anew")
        assert (ours.fingerprint, ours.statistics, ours.splits) == (
            theirs.fingerprint,
            theirs.statistics,
            theirs.splits,
        )
        assert verify(output).ok

    assert everywhere(monkeypatch, begun, run, check) > 20


def test_cut_off_anywhere_a_parked_job_begins_anew(orchestra, tmp_path, monkeypatch):
    """Too many rejects, mended inputs: what was decoded is dropped, and nothing of it may be taken for the new."""
    small_parts(monkeypatch)
    folder, mend = mended(orchestra, tmp_path)

    def run(output):
        if layout.is_complete(output):  # cut off while it tidied up
            return shutil.rmtree(f"{output}/unfinished")
        prepare(output=output, input_path=str(folder), settings=SETTINGS, max_reject_fraction=0.1,
                show_progress=False, leak_audit=False, beam_args=["--runner=FnApiRunner"])  # fmt: skip

    with pytest.raises(ValueError, match="max_reject_fraction"):
        run(f"{tmp_path}/parked")
    mend()
    (folder / "oboe" / "empty.mp3").unlink()
    run(f"{tmp_path}/anew")

    def begun(number):
        return shutil.copytree(tmp_path / "parked", tmp_path / str(number)).as_posix()

    def check(output, number):
        assert files(output) == files(f"{tmp_path}/anew"), number
        assert verify(output).ok

    assert everywhere(monkeypatch, begun, run, check) > 20


def test_an_interrupted_exchange_is_not_taken_for_another_commands_result(orchestra, tmp_path, monkeypatch):
    folder, mend = mended(orchestra, tmp_path)
    arguments = {"output": f"{tmp_path}/d", "input_path": str(folder), "max_reject_fraction": 0.5,
                 "show_progress": False, "leak_audit": False}  # fmt: skip
    prepare(settings=PrepareSettings(), **arguments)
    mend()
    move = storage.move
    monkeypatch.setattr(storage, "move", lambda *paths: (_ for _ in ()).throw(RuntimeError("cut off here")))
    with pytest.raises(RuntimeError):
        prepare(settings=PrepareSettings(), retry_rejects=True, **arguments)
    monkeypatch.setattr(storage, "move", move)
    other = PrepareSettings(split=SplitSettings(seed=1))
    with pytest.raises(ValueError, match="was made with split.seed=0, this command has split.seed=1"):
        prepare(settings=other, **arguments)
    assert verify(f"{tmp_path}/d").ok and layout.read_spec(f"{tmp_path}/d").num_recordings == 13


def test_what_a_retry_refuses_leaves_the_dataset_as_it_was(orchestra, melcache, tmp_path):
    folder, _ = mended(orchestra, tmp_path)
    rows = [{"path": str(path.relative_to(folder)), "label": path.parent.name, "take": "1"}
            for path in sorted(folder.rglob("*.*"))]  # fmt: skip
    manifest = tmp_path / "m.csv"

    def command(rows, *more):
        write_manifest(manifest, rows)
        return melcache("prepare", f"--manifest={manifest}", f"--input={folder}", f"--output={tmp_path}/d",
                        "--max_reject_fraction=0.3", *more)  # fmt: skip

    assert command(rows).returncode == 0
    before = files(f"{tmp_path}/d")

    def refused(rows, words, *more):
        done = command(rows, "--retry_rejects", *more)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
        # What the retry had begun may stand beside the dataset, in a folder of its own.
        assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir() if path.is_file()} | {
            layout.SPEC: None
        } == before | {layout.SPEC: None}

    used = next(row for row in rows if "cello_" in row["path"])
    refused(
        [row for row in rows if row is not used],
        f"the clips of {used['path']} in {tmp_path}/d can't be kept, since it is gone",
    )
    refused([{**row, "label": "oboe"} if row is used else row for row in rows], "its label was 'cello' and is 'oboe'")
    refused([{**row, "take": "2"} if row is used else row for row in rows], "its take was '1' and is '2'")
    refused([{**row, "room": "x"} for row in rows], "metadata_columns=")
    (folder / "bass").mkdir()
    for index in range(3):
        soundfile.write(folder / "bass" / f"{index}.wav", [0.1 * index, 0.2, 0.3] * 1000, 8_000)
    bass = [{"path": f"bass/{index}.wav", "label": "bass", "take": "1"} for index in range(3)]
    refused([*rows, *bass], "class_names=")
    broken = [{"path": f"oboe/new{index}.wav", "label": "oboe", "take": "1"} for index in range(9)]
    refused([*rows, *broken], "can't be used, more than --max_reject_fraction=0.3 allows")
    shard = next((tmp_path / "d").glob("log_mel-train*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    before[shard.name] = shard.read_bytes()
    refused(rows, f"{shard} is damaged")


def test_rejects_of_windows_stay_rejects_when_tried_again(orchestra, melcache_json, tmp_path):
    """Equal audio under two labels, of which one stands within a longer recording."""
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    note, rate_hz = soundfile.read(next((folder / "cello").glob("cello_*.wav")), dtype="float32")
    long = [note[: rate_hz // 2] * 0.5, note[: rate_hz // 2] * 0.7, note[: rate_hz // 2] * 0.9]
    soundfile.write(
        folder / "cello" / "long.wav", [sample for part in long for sample in part], rate_hz, subtype="FLOAT"
    )
    soundfile.write(folder / "flute" / "same.wav", long[1], rate_hz, subtype="FLOAT")
    command = ["prepare", f"--input={folder}", "--windows=all", "--clip_s=0.5", "--max_reject_fraction=0.5"]
    first = melcache_json(*command, f"--output={tmp_path}/d")
    assert {line["path"] for line in layout.read_rejects(f"{tmp_path}/d") if line["stage"] == "duplicate"} == {
        "cello/long.wav", "flute/same.wav"
    }  # fmt: skip
    again = melcache_json(*command, f"--output={tmp_path}/d", "--retry_rejects")
    assert (first["num_clips"], first["num_rejects"]) == (again["num_clips"], again["num_rejects"])
    assert first["fingerprint"] == again["fingerprint"]


def test_shards_of_an_earlier_plan_are_not_taken_for_those_of_this_one(orchestra, tmp_path, monkeypatch):
    """Cut off while shards are written, ended for rejects, and continued with another division."""
    arguments = {"input_path": str(orchestra), "show_progress": False, "leak_audit": False}
    stop = Fault(monkeypatch)
    write_shard = workspace.Workspace.write_shard

    def once(self, *args, **kwargs):
        write_shard(self, *args, **kwargs)
        raise RuntimeError("cut off here")

    monkeypatch.setattr(workspace.Workspace, "write_shard", once)
    with pytest.raises(ValueError, match="cut off here"):
        prepare(output=f"{tmp_path}/d", settings=PrepareSettings(), max_reject_fraction=0.5, **arguments)
    monkeypatch.setattr(workspace.Workspace, "write_shard", write_shard)
    assert stop.left is None
    with pytest.raises(ValueError, match="max_reject_fraction"):
        prepare(output=f"{tmp_path}/d", settings=PrepareSettings(), max_reject_fraction=0.1, **arguments)
    other = PrepareSettings(split=SplitSettings(seed=3), num_shards=1)
    prepare(output=f"{tmp_path}/d", settings=other, max_reject_fraction=0.5, **arguments)
    prepare(output=f"{tmp_path}/anew", settings=other, max_reject_fraction=0.5, **arguments)
    assert files(f"{tmp_path}/d") == files(f"{tmp_path}/anew") and verify(f"{tmp_path}/d").ok
