"""Are features still those of a clip dataset? Names what differs, and the command that mends it."""

import collections
import dataclasses
import shlex
from typing import Any

from tfdata import schema, shards, storage
from tfdata.spec import DatasetSpec, is_variant
from tfdata.unfinished import first_difference


def parent(clips: DatasetSpec, path: str) -> dict[str, Any]:
    """What a feature dataset records of the clips it is made from: `DatasetSpec.parent`."""
    return {"fingerprint": clips.fingerprint, "path": storage.absolute(path), **_compared(clips)}


def _compared(clips: DatasetSpec) -> dict[str, Any]:
    """All that enters the clips' fingerprint, in the order in which differences are told."""
    return {
        "settings": clips.settings,
        "array": {**dataclasses.asdict(clips.array), "shape": list(clips.array.shape)},
        "class_names": list(clips.class_names),
        "metadata_columns": list(clips.metadata_columns),
        "content_digest": clips.content_digest,
        "splits": {name: list(split.shard_lengths) for name, split in clips.splits.items()},
    }


def difference(features: DatasetSpec, clips: DatasetSpec) -> str | None:
    """The first field in which `clips` differ from those that `features` were made from, as part of a sentence.

    Such as "log_mel.n_mels=128 then, 64 now"; None where they are the same.
    """
    then = features.parent
    if then["fingerprint"] == clips.fingerprint:
        return None
    if "settings" not in then:
        return f"fingerprint {then['fingerprint'][:12]} then, {clips.fingerprint[:12]} now"
    now = _compared(clips)
    if changed := first_difference(then["settings"], now["settings"]):
        return "{}={} then, {} now".format(*changed)
    for name in ("array", "class_names", "metadata_columns"):
        if changed := first_difference({name: then[name]}, {name: now[name]}):
            return "{}={} then, {} now".format(*changed)
    if then["content_digest"] != now["content_digest"]:
        return f"content: {features.num_clips:,} clips then, {clips.num_clips:,} now, not the same in the same splits"
    return "splits: the same clips in other shards"


def arrays_differ(features: DatasetSpec, clips: DatasetSpec) -> str | None:
    """Why a clip that `features` were made from may have another array than the clip of equal audio in `clips`.

    None where it can't: the log-mel follows from the audio and the settings named "log_mel".
    """
    then, now = features.parent, _compared(clips)
    if "settings" not in then:
        return "it does not say what its clips were made with, an older melcache wrote it"
    for name, (before, after) in {
        "log_mel": (then["settings"]["log_mel"], now["settings"]["log_mel"]),
        "array": (then["array"], now["array"]),
    }.items():
        if changed := first_difference({name: before}, {name: after}):
            return "its clips have {}={}, these {}".format(*changed)
    return None


def content_change(features_dir: str, features: DatasetSpec, clips_dir: str, clips: DatasetSpec) -> str:
    """How many clips are new and how many gone, by their audio; reads the records of both.

    Raises:
      DatasetError: a shard is missing or damaged.
    """
    then, now = (_contents(*dataset) for dataset in ((features_dir, features), (clips_dir, clips)))
    return f"{(now - then).total():,} clips are new, {(then - now).total():,} gone"


def _contents(directory: str, spec: DatasetSpec) -> collections.Counter[str]:
    """Real clips by content hash."""
    return collections.Counter(
        schema.decode_clip(record, spec)[0].content_hash
        for split in spec.splits
        if not is_variant(split)
        for shard in shards.of_split(directory, spec, split)
        for record in shards.read(shard)
    )


def mending_command(features_dir: str, clips_dir: str) -> str:
    """The command that makes features of the clips as they are now, with the same network, from what is there."""
    output = features_dir.rstrip("/") + "_new"
    arguments = [f"--data={clips_dir}", f"--like={features_dir}", f"--output={output}"]
    return shlex.join(["melcache", "cache", *arguments])
