"""Which clip goes into which shard: decided once all recordings are decoded, from what they turned out to be."""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from beam_preprocess.settings import PrepareSettings
from beam_preprocess.splits import Item, assign_folds, assign_splits, content_in_two_splits
from beam_preprocess.workspace import RecordPlace
from tfdata import layout, schema
from tfdata.spec import LOG_MEL, SPLIT_NAMES, DatasetError, content_digest

_MIN_SHARDS = 8
_MAX_SHARD_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """The shards of a dataset.

    Attributes:
      shards: split to its shards, each the ids of its clips in order.
      folds: clip id to fold; empty where there are none.
      clips: the index lines of the clips used, by id.
      rejects: the index lines of the inputs refused, sorted by path.
      silent: label to the number of windows left out as silence.
    """

    shards: Mapping[str, list[list[str]]]
    folds: Mapping[str, int]
    clips: Mapping[str, dict]
    rejects: list[dict]
    silent: Mapping[str, int]

    @property
    def content_digest(self) -> str:
        return content_digest(
            (split, id, self.clips[id]["label"], self.clips[id]["content_hash"], self.fold(id))
            for split in self.shards
            for id in self.ids(split)
        )

    def ids(self, split: str) -> list[str]:
        return [id for shard in self.shards[split] for id in shard]

    def fold(self, id: str) -> int:
        return self.folds.get(id, schema.NO_FOLD)

    def named_shards(self) -> dict[str, list[str]]:
        """Shard file name to the ids of its clips."""
        return {
            name: ids
            for split, shards in self.shards.items()
            for name, ids in zip(layout.shard_names(LOG_MEL, split, len(shards)), shards)
        }

    def place(self, id: str) -> RecordPlace:
        clip = self.clips[id]
        return RecordPlace(part=clip["part"], start=clip["start"], end=clip["end"])


class InputRejected(DatasetError):
    """More inputs can't be used than the job allows, or none of some class can.

    Attributes:
      rejects: their index lines.
    """

    def __init__(self, message: str, rejects: list[dict]):
        super().__init__(message)
        self.rejects = rejects


def make_plan(
    index_lines: Iterable[dict],
    *,
    settings: PrepareSettings,
    class_names: Sequence[str],
    max_reject_fraction: float,
    bytes_per_clip: int,
) -> Plan:
    """Split and place all clips of a job.

    Clips of one split are ordered by a hash of their id, so that every shard is a fair sample, and cut into even runs.

    Raises:
      InputRejected: more than `max_reject_fraction` of the inputs, or all of a class.
      DatasetError: as `assign_splits` and `assign_folds`.
    """
    rejects, clips, silent = [], {}, collections.Counter()
    for line in index_lines:
        if "reason" in line:
            rejects.append(line)
        elif "silent" in line:
            silent[line["label"]] += line["silent"]
        else:
            clips[line["id"]] = line
    rejects += _leave_out(clips, _under_two_labels(clips), "under another label")
    _check_rejects(rejects, clips, class_names, max_reject_fraction)
    items = [
        Item(id=id, label=clip["label"], group=clip["group"], content_hash=clip["content_hash"], split=clip["split"])
        for id, clip in clips.items()
    ]
    split_of = assign_splits(items, settings.split)
    if settings.split.method == "stable":
        rejects += _leave_out(clips, content_in_two_splits(items, split_of), "of another group, in another split")
        _check_rejects(rejects, clips, class_names, max_reject_fraction)
        items = [item for item in items if item.id in clips]
    by_split = collections.defaultdict(list)
    for id in clips:
        by_split[split_of[id]].append(id)
    return Plan(
        shards={
            split: _shards(by_split[split], settings.num_shards, bytes_per_clip)
            for split in SPLIT_NAMES
            if by_split[split]
        },
        folds=assign_folds(items, split_of, settings.split),
        clips=clips,
        rejects=sorted(rejects, key=lambda line: (line["path"], line.get("start_s", 0))),
        silent=silent,
    )


def _shards(ids: Iterable[str], num_shards: int, bytes_per_clip: int) -> list[list[str]]:
    ids = sorted(ids, key=lambda id: hashlib.sha256(f"shard\n{id}".encode()).digest())
    wanted = num_shards or max(_MIN_SHARDS, -(-len(ids) * bytes_per_clip // _MAX_SHARD_BYTES))
    num_shards = min(wanted, len(ids))
    bounds = [len(ids) * i // num_shards for i in range(num_shards + 1)]
    return [ids[start:end] for start, end in zip(bounds, bounds[1:])]


def _check_rejects(
    rejects: list[dict], clips: Mapping[str, dict], class_names: Sequence[str], max_fraction: float
) -> None:
    used = {clip["recording"] for clip in clips.values()}
    refused = {line["path"] for line in rejects} - used
    total = len(used) + len(refused)
    if total and len(refused) / total > max_fraction:
        enough = math.ceil(100 * len(refused) / total) / 100
        raise InputRejected(
            f"{len(refused)} of {total} inputs can't be used, more than --max_reject_fraction={max_fraction:g} "
            f"allows: mend or remove them, or run again with --max_reject_fraction={enough:g}",
            rejects,
        )
    usable = {clip["label"] for clip in clips.values()}
    for name in class_names:
        if name not in usable:
            raise InputRejected(
                f"no recording of class {name!r} can be used: mend them, or take the class out of the input", rejects
            )


def _under_two_labels(clips: Mapping[str, dict]) -> dict[str, str]:
    """Clips of equal audio that stand under several labels, each with one that contradicts it."""
    by_content = collections.defaultdict(list)
    for id, clip in clips.items():
        by_content[clip["content_hash"]].append(id)
    found = {}
    for ids in map(sorted, by_content.values()):  # whatever the order of the parts
        if len({clips[id]["label"] for id in ids}) > 1:
            for id in ids:
                found[id] = next(other for other in ids if clips[other]["label"] != clips[id]["label"])
    return found


def _leave_out(clips: dict[str, dict], twins: Mapping[str, str], where: str) -> list[dict]:
    """Remove clips from `clips`; returns the rejects, each naming its twin."""
    rejects = [
        {
            "path": clips[id]["recording"],
            "start_s": float(id.rpartition("@")[2]),
            "label": clips[id]["label"],
            "stage": "duplicate",
            "content_hash": clips[id]["content_hash"],
            "reason": f"equal audio, in the seconds used, {where}: {clips[twin]['recording']} is "
            f"{clips[twin]['label']!r}",
        }
        for id, twin in twins.items()
    ]
    for id in twins:
        del clips[id]
    return rejects
