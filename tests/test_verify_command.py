"""`melcache verify`: a whole dataset passes, and whatever is done to its files is found and named."""

import json
import shutil

import pytest

from tfdata import layout, records, storage


@pytest.fixture
def copy(clips_dir, tmp_path):
    shutil.copytree(clips_dir, tmp_path / "copy")
    return tmp_path / "copy"


def shards(directory, split="train"):
    return layout.shard_paths(str(directory), layout.read_spec(str(directory)), split)


def verdict(melcache, directory):
    done = melcache("verify", directory, "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("dataset", ["clips_dir", "features_dir"])
def test_a_whole_dataset_passes(dataset, melcache, request):
    directory = request.getfixturevalue(dataset)
    status, told = verdict(melcache, directory)
    spec = layout.read_spec(str(directory))
    assert status == 0 and told["ok"] and told["problems"] == []
    assert [shard["ok"] for shard in told["shards"]] == [True] * sum(len(s.shard_lengths) for s in spec.splits.values())


def edit(path, change):
    data = bytearray(storage.read_bytes(path))
    change(data)
    storage.write_bytes(path, bytes(data))


def flip(data):
    data[len(data) // 2] ^= 1


def cut(data):
    del data[-7:]


def swap_first_two(copy):
    one, two = shards(copy)[:2]
    a, b = storage.read_bytes(one), storage.read_bytes(two)
    storage.write_bytes(one, b)
    storage.write_bytes(two, a)


def replace_a_label(copy):
    """A record changed by somebody who writes valid records."""
    path = shards(copy)[0]
    changed = []
    for record in records.unframe(storage.read_bytes(path), where=path):
        values = records.decode_example(record)
        changed.append(records.encode_example({**values, "label": (values["label"] + 1) % 3}))
    storage.write_bytes(path, records.frame(changed))


DAMAGE = {
    "a flipped byte": (lambda copy: edit(shards(copy)[0], flip), "damaged|was changed"),
    "a truncated shard": (lambda copy: edit(shards(copy)[0], cut), "cut off"),
    "an empty shard": (lambda copy: storage.write_bytes(shards(copy)[0], b""), "holds 0 clips"),
    "a shard gone": (lambda copy: storage.remove(shards(copy)[0]), "is missing"),
    "a shard twice": (lambda copy: shutil.copy(shards(copy)[1], shards(copy)[0]), "not the shard that was written"),
    "two shards exchanged": (swap_first_two, "not the shard that was written"),
    "a changed label": (replace_a_label, "not the shard that was written"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_readers_refuse(damage, copy, melcache):
    import re

    from tfdata import clips

    harm, reason = DAMAGE[damage]
    harm(copy)
    status, told = verdict(melcache, copy)
    name = shards(copy)[0].rsplit("/", 1)[-1]
    assert status == 1 and not told["ok"]
    assert re.search(reason, next(shard["reason"] for shard in told["shards"] if shard["name"] == name))
    with pytest.raises(ValueError, match=re.escape(name)):
        clips.load_split(str(copy), layout.read_spec(str(copy)), "train")


def test_files_that_do_not_belong_together_are_named(copy, features_dir, melcache):
    storage.write_text(str(copy / layout.COMPLETED), "0" * 64)
    shutil.copy(shards(features_dir)[0], copy)
    status, told = verdict(melcache, copy)
    assert status == 1 and all(shard["ok"] for shard in told["shards"])
    completed, unknown = told["problems"]
    assert "COMPLETED names fingerprint 000000000000" in completed and "features-train.tfrecord-00000" in unknown


def test_what_is_no_dataset_is_said(melcache, tmp_path):
    done = melcache("verify", tmp_path)
    assert done.returncode == 1 and "not a complete dataset" in done.stderr
    assert melcache("verify").returncode == 2
