"""`melcache prepare` as people run it: the dataset it makes, bad input, interruption."""

import collections
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import soundfile
from tests_support import write_manifest

from tfdata import clips, layout


def manifest_rows(orchestra):
    import csv

    with open(orchestra / "notes.csv", newline="") as file:
        return list(csv.DictReader(file))


def files(directory):
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir()}


def test_makes_a_whole_dataset_of_a_manifest(clips_dir, orchestra):
    spec = layout.read_spec(str(clips_dir))
    assert spec.class_names == ("cello", "flute", "oboe")
    assert spec.metadata_columns == ("pitch", "dynamic", "group")
    assert {name: split.num_clips for name, split in spec.splits.items()} == {"train": 6, "validation": 3, "test": 3}
    assert all(count >= 1 for split in spec.splits.values() for count in split.class_counts)
    seen = set()
    for name in spec.splits:
        split = clips.load_split(str(clips_dir), spec, name)
        for clip, image in zip(split.clips, split.array):
            assert clip.recording.startswith(spec.class_names[clip.label] + "/")
            assert clip.metadata["group"] == clip.group == f"{spec.class_names[clip.label]}_{clip.metadata['pitch']}"
            assert image.dtype == np.float16 and np.isfinite(image).all() and image.astype(np.float32).std() > 1
        seen |= {clip.recording for clip in split.clips}
    rejects = {reject["path"]: reject for reject in layout.read_rejects(str(clips_dir))}
    assert seen | set(rejects) == {row["path"] for row in manifest_rows(orchestra)}
    assert set(rejects) == {"cello/not_numbers.wav", "flute/no_audio.wav", "oboe/empty.mp3"}
    assert all(
        reject["stage"] == "decode" and reject["reason"] and reject["content_hash"] for reject in rejects.values()
    )
    assert not (clips_dir / "unfinished").exists()


def test_json_line_tells_what_was_made(orchestra, melcache_json, tmp_path):
    told = melcache_json("prepare", f"--input={orchestra}", f"--output={tmp_path}/d", "--max_reject_fraction=0.3")
    spec = layout.read_spec(f"{tmp_path}/d")
    assert told["fingerprint"] == spec.fingerprint and told["output"] == f"{tmp_path}/d"
    assert (told["num_recordings"], told["num_clips"], told["num_rejects"]) == (12, 12, 4)
    # Folder mode: every file is used or named, the manifest that lies about too.
    assert {"notes.csv": "stands outside a class folder"}.items() <= {
        reject["path"]: reject["reason"] for reject in layout.read_rejects(f"{tmp_path}/d")
    }.items()


def test_tensorflow_datasets_reads_it(clips_dir):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(clips_dir))
    spec = layout.read_spec(str(clips_dir))
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        name: split.num_clips for name, split in spec.splits.items()
    }
    ours = clips.load_split(str(clips_dir), spec, "train")
    theirs = list(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)))
    assert [example["id"].decode() for example in theirs] == [clip.id for clip in ours.clips]
    np.testing.assert_array_equal(np.stack([example["log_mel"] for example in theirs]), ours.array)
    assert [example["metadata"]["pitch"].decode() for example in theirs] == [c.metadata["pitch"] for c in ours.clips]
    assert builder.info.features["label"].names == list(spec.class_names)


def test_a_split_column_wins_and_labels_keep_their_order(orchestra, melcache_json, tmp_path):
    rows = [row for row in manifest_rows(orchestra) if row["pitch"]]
    splits = ["train", "train", "validation", "test"]
    for index, row in enumerate(rows):
        row["split"] = splits[index % 4]
        row["path"] = str(orchestra / row["path"])
    write_manifest(tmp_path / "m.csv", rows)
    melcache_json("prepare", f"--manifest={tmp_path}/m.csv", f"--output={tmp_path}/d", "--classes=oboe,flute,cello")
    spec = layout.read_spec(f"{tmp_path}/d")
    assert spec.class_names == ("oboe", "flute", "cello")
    wanted = {row["path"]: row["split"] for row in rows}
    for name in spec.splits:
        for clip in clips.load_split(f"{tmp_path}/d", spec, name).clips:
            assert wanted[clip.recording] == name


def test_equal_audio_under_two_labels_is_rejected_by_name(orchestra, melcache_json, tmp_path):
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    source = next((folder / "cello").glob("cello_*"))
    shutil.copy(source, folder / "flute" / f"stray{source.suffix}")
    (folder / "cello" / "another.wav").write_bytes((folder / "cello" / "not_numbers.wav").read_bytes())
    melcache_json("prepare", f"--input={folder}", f"--output={tmp_path}/d", "--max_reject_fraction=0.5")
    reasons = {reject["path"]: reject["reason"] for reject in layout.read_rejects(f"{tmp_path}/d")}
    assert f"cello/{source.name} is 'cello'" in reasons[f"flute/stray{source.suffix}"]
    assert f"cello/{source.name}" in reasons


def test_glob_takes_the_folder_for_the_class(orchestra, melcache_json, tmp_path):
    told = melcache_json("prepare", f"--input={orchestra}/*/*_*_mf.*", f"--output={tmp_path}/d")
    assert told["num_clips"] == 12 and told["num_rejects"] == 0
    assert layout.read_spec(f"{tmp_path}/d").class_names == ("cello", "flute", "oboe")


def test_what_is_no_audio_clip_is_named_and_stops_nothing(orchestra, melcache_json, tmp_path):
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    os.mkfifo(folder / "cello" / "pipe.wav")
    (folder / "cello" / "device.wav").symlink_to("/dev/zero")
    soundfile.write(folder / "flute" / "hot.wav", np.full(8000, 1e25), 8_000, subtype="DOUBLE")
    (folder / "oboe" / "claims_2_gb.wav").write_bytes(
        b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\1\0\1\0\x44\xac\0\0\x88\x58\1\0\2\0\x10\0data\xf0\xff\xff\x7f"
    )
    told = melcache_json(
        "prepare", f"--input={folder}", f"--output={tmp_path}/d", "--max_reject_fraction=0.5", timeout_s=60
    )
    reasons = {
        reject["path"]: f"{reject['stage']}: {reject['reason']}" for reject in layout.read_rejects(f"{tmp_path}/d")
    }
    assert reasons["cello/pipe.wav"] == reasons["cello/device.wav"] == "read: not a regular file"
    assert reasons["flute/hot.wav"] == "decode: samples up to 1e+25, where 1 is full scale: no audio"
    assert "oboe/claims_2_gb.wav" in reasons and told["num_clips"] == 12


def test_inputs_mended_after_too_many_rejects_are_taken_up(orchestra, melcache, melcache_json, tmp_path):
    folder = tmp_path / "notes"
    shutil.copytree(orchestra, folder)
    command = ["prepare", f"--input={folder}", f"--output={tmp_path}/d"]
    assert melcache(*command).returncode == 1
    note = next((folder / "oboe").glob("oboe_*.wav"))
    soundfile.write(folder / "flute" / "no_audio.wav", soundfile.read(note)[0][::-1], 44_100)
    for name in ("cello/not_numbers.wav", "oboe/empty.mp3", "notes.csv"):
        (folder / name).unlink()
    assert melcache_json(*command)["num_clips"] == 13
    assert layout.read_rejects(f"{tmp_path}/d") == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "no column 'path'"),
        ("path,label\n", "no recordings found"),
        ("path,label,label\na.wav,x,y\n", "two columns 'label'"),
        (",path,label\n0,a.wav,x\n", "a column without a name"),
        ("path,label\na.wav\n", "line 2 has another number of fields"),
        ("path,label\na.wav,\n", "line 2 has an empty label"),
        ("path,label,split\na.wav,x,tset\n", "line 2 has split 'tset'.*did you mean 'test'"),
        ("path,label\na.wav,x\na.wav,y\n", "line 3 names a.wav again"),
        ("path,label\na.wav,x\nb.wav,x\n", "only one class"),
        ('path,label\n"a.wav,x\nb.wav,y\n', "stray quote"),
    ],
)
def test_odd_manifests_are_refused_by_line(text, expected, tmp_path):
    from beam_preprocess.recordings import find_recordings

    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=expected):
        find_recordings(input_path=None, manifest=f"{tmp_path}/m.csv", group=None, classes=())


def test_recordings_with_an_empty_group_are_groups_of_their_own(tmp_path):
    from beam_preprocess.recordings import find_recordings

    (tmp_path / "m.csv").write_text("\ufeffpath,label,player\na.wav,x,\nb.wav,y, \nc.wav,y,eva\n", encoding="utf-8")
    found = find_recordings(input_path=None, manifest=f"{tmp_path}/m.csv", group="player", classes=())
    assert [recording.group for recording in found] == ["a.wav", "b.wav", "eva"]


def test_odd_names_are_names_like_others(orchestra, melcache_json, tmp_path):
    folder = tmp_path / "notes"
    for name in ("cello", "flute"):
        for index, note in enumerate(sorted((orchestra / name).glob(f"{name}_*"))):
            strange = [
                f"with space{note.suffix}",
                f"quo'te\"{note.suffix}",
                f"line\nbreak{note.suffix}",
                f"flöte-笛{note.suffix}",
            ]
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(note, folder / name / strange[index])
    os.symlink(folder, folder / "cello" / "circle")
    (folder / os.fsdecode(b"cello/\xff.wav")).write_bytes(b"x")
    told = melcache_json("prepare", f"--input={folder}", f"--output={tmp_path}/d", "--max_reject_fraction=0.5")
    assert told["num_clips"] == 8 and told["num_rejects"] == 1


BAD = {
    "no input": ([], 2, "--input or --manifest"),
    "no output": (["--input={notes}"], 2, "--output must be given"),
    "typo": (["--inptu={notes}", "--output={out}"], 2, "inptu"),
    "stray word": (["--input={notes}", "out", "--output={out}"], 2, "'out'"),
    "input does not exist": (["--input=/nowhere/notes", "--output={out}"], 1, "/nowhere/notes"),
    "manifest does not exist": (["--manifest=/nowhere.csv", "--output={out}"], 1, "/nowhere.csv"),
    "glob without match": (["--input={notes}/*/*.xyz", "--output={out}"], 1, "matches no files"),
    "empty folder": (["--input={empty}", "--output={out}"], 1, "no recordings found in {empty}"),
    "test fraction": (["--input={notes}", "--output={out}", "--test_fraction=1.2"], 1, "--test_fraction"),
    "mels": (["--input={notes}", "--output={out}", "--n_mels=0"], 1, "--n_mels must be above 0"),
    "too many rejects": (["--input={notes}", "--output={out}"], 1, "--max_reject_fraction=0.25"),
    "group without manifest": (["--input={notes}", "--output={out}", "--group=player"], 1, "--manifest"),
    "group not a column": (["--manifest={notes}/notes.csv", "--output={out}", "--group=player"], 1, "column 'player'"),
    "unknown class": (["--manifest={notes}/notes.csv", "--output={out}", "--classes=cello,oboe,flutes"], 1,
                      "unknown class 'flute' for flute/.*did you mean 'flutes'"),
    "unwritable": (["--input={notes}", "--output=/proc/melcache/d", "--max_reject_fraction=1"], 1, "can't write"),
    "a file as output": (["--input={notes}", "--output={file}", "--max_reject_fraction=1"], 1, "{file}"),
    "not ours": (["--input={notes}", "--output={busy}", "--max_reject_fraction=1"], 1, "not empty"),
    "length": (["--input={notes}", "--output={out}", "--clip_s=inf"], 1, "--clip_s must be above 0 and finite"),
    "output in input": (["--input={notes}", "--output={notes}/cello/out"], 1, "lies in --input"),
    "beam value": (["--input={notes}", "--output={out}", "--", "--direct_num_workers=x"], 1, "invalid int value: 'x'"),
    "beam option": (["--input={notes}", "--output={out}", "--", "--runer=DirectRunner"], 1, "--runer"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines_fail_in_one_line(case, orchestra, melcache, tmp_path):
    import re

    arguments, status, expected = BAD[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    places = {
        "notes": orchestra,
        "out": tmp_path / "out",
        "empty": tmp_path / "empty",
        "file": tmp_path / "file",
        "busy": tmp_path,
    }
    done = melcache("prepare", "--quiet", *(argument.format(**places) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert re.search(expected.format(**places), done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "COMPLETED").exists()


def test_manifest_without_a_needed_column_names_it(melcache, tmp_path):
    write_manifest(tmp_path / "m.csv", [{"file": "a.wav", "label": "x"}])
    done = melcache("prepare", f"--manifest={tmp_path}/m.csv", f"--output={tmp_path}/d")
    assert done.returncode == 1 and "no column 'path'; its columns are: file, label" in done.stderr


@pytest.mark.parametrize("count, words", [(1, "'solo' has 1 clip"), (2, "'solo' has 2 clips")])
def test_a_class_too_small_to_split_is_named_and_nothing_is_left(count, words, orchestra, melcache, tmp_path):
    rows = [row for row in manifest_rows(orchestra) if row["pitch"]]
    rows = [{"path": str(orchestra / row["path"]), "label": row["label"]} for row in rows]
    for row in rows[:count]:
        row["label"] = "solo"
    write_manifest(tmp_path / "m.csv", rows)
    done = melcache("prepare", f"--manifest={tmp_path}/m.csv", f"--output={tmp_path}/d")
    assert done.returncode == 1 and words in done.stderr and "Add recordings" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_path_that_does_not_exist_is_a_named_reject(orchestra, melcache, tmp_path):
    rows = [row for row in manifest_rows(orchestra) if row["pitch"]]
    rows = [{"path": str(orchestra / row["path"]), "label": row["label"]} for row in rows]
    write_manifest(tmp_path / "m.csv", [*rows, {"path": "gone.wav", "label": "oboe"}])
    refused = melcache("prepare", f"--manifest={tmp_path}/m.csv", f"--output={tmp_path}/d", "--max_reject_fraction=0")
    assert refused.returncode == 1 and "gone.wav: read: no such file" in refused.stderr
    assert not (tmp_path / "d" / "COMPLETED").exists()
    # The same command with a higher limit goes on from there.
    allowed = melcache("prepare", f"--manifest={tmp_path}/m.csv", f"--output={tmp_path}/d", "--json")
    assert "continuing an interrupted job: 13 of 13 recordings are done" in allowed.stderr
    told = json.loads(allowed.stdout)
    assert told["num_rejects"] == 1 and told["num_clips"] == 12


def test_a_complete_output_is_refused(clips_dir, orchestra, melcache):
    before = files(clips_dir)
    done = melcache("prepare", f"--manifest={orchestra}/notes.csv", f"--output={clips_dir}")
    assert done.returncode == 1 and f"{clips_dir} is already complete" in done.stderr
    assert files(clips_dir) == before


def test_readers_refuse_what_is_incomplete_or_changed(clips_dir, melcache, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clips_dir, copy)
    (copy / "COMPLETED").unlink()
    with pytest.raises(ValueError, match="not a complete dataset"):
        layout.read_spec(str(copy))
    (copy / "COMPLETED").write_text("")
    spec = json.loads((copy / "spec.json").read_text())
    spec["settings"]["log_mel"]["n_fft"] = 4096
    (copy / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="changed after it was written"):
        layout.read_spec(str(copy))


def test_a_missing_or_exchanged_shard_is_named(clips_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clips_dir, copy)
    spec = layout.read_spec(str(copy))
    first, second, *_ = layout.shard_paths(str(copy), spec, "train")
    pathlib.Path(first).write_bytes(pathlib.Path(first).read_bytes() * 2)
    with pytest.raises(ValueError, match=first):
        clips.load_split(str(copy), spec, "train")
    pathlib.Path(first).unlink()
    with pytest.raises(ValueError, match=f"{first} is missing"):
        clips.load_split(str(copy), spec, "train")


def test_dry_run_writes_nothing(orchestra, melcache, tmp_path):
    done = melcache("prepare", f"--input={orchestra}", f"--output={tmp_path}/d", "--dry_run")
    assert done.returncode == 0 and "cello: 5 files" in done.stdout and not (tmp_path / "d").exists()


def test_workers_import_nothing_heavy_that_they_do_not_need(melcache):
    import subprocess
    import sys

    heavy = ["tensorflow", "keras", "sklearn", "scipy.signal", "numba"]
    code = f"import beam_preprocess.pipeline, sys; print([name for name in {heavy} if name in sys.modules])"
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_real_notes_both_ways(recordings_dir, melcache_json, tmp_path):
    told = melcache_json("prepare", f"--input={recordings_dir}/notes", f"--output={tmp_path}/random")
    assert told["splits"] == {"train": 832, "validation": 209, "test": 260} and told["num_rejects"] == 0
    melcache_json("prepare", f"--manifest={recordings_dir}/notes.csv", "--group=group", f"--output={tmp_path}/grouped")
    spec = layout.read_spec(f"{tmp_path}/grouped")
    assert spec.num_clips == 1301 and set(spec.metadata_columns) >= {"pitch", "dynamic", "articulation"}
    splits_of_group = collections.defaultdict(set)
    for name in spec.splits:
        for clip in clips.load_split(f"{tmp_path}/grouped", spec, name).clips:
            splits_of_group[clip.group].add(name)
    assert all(len(splits) == 1 for splits in splits_of_group.values())


def test_odd_audio_is_used_or_named(recordings_dir, melcache_json, tmp_path):
    folder = recordings_dir / "odd_audio"
    told = melcache_json("prepare", f"--input={folder}", f"--output={tmp_path}/d", "--max_reject_fraction=1")
    assert told["num_recordings"] + told["num_rejects"] == sum(path.is_file() for path in folder.rglob("*"))
    for reject in layout.read_rejects(f"{tmp_path}/d"):
        assert reject["path"] and reject["stage"] and reject["reason"] and reject["content_hash"]
    # What soundfile opens and finds samples in, we use, but for equal audio under both labels.
    rejected = {reject["path"] for reject in layout.read_rejects(f"{tmp_path}/d") if reject["stage"] != "duplicate"}
    for path in folder.rglob("*"):
        if path.is_file():
            try:
                usable = len(soundfile.read(path, frames=soundfile.info(path).samplerate)[0]) > 0
            except (soundfile.LibsndfileError, RuntimeError):
                usable = False
            assert usable != (path.relative_to(folder).as_posix() in rejected), path
