"""Which clip goes into which shard: decided once all recordings are decoded, from what they turned out to be."""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from beam_preprocess.settings import PrepareSettings
from beam_preprocess.splits import Item, assign_splits
from tfdata.spec import SPLIT_NAMES, DatasetError, digest

_MIN_SHARDS = 8
_MAX_SHARD_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """The shards of a dataset.

    Attributes:
      places: clip id to (split, shard, place within the shard).
      shard_lengths: split to the number of clips in each of its shards.
      clips: the index lines of the clips used, by id.
      rejects: the index lines of the inputs refused, sorted by path.
    """

    places: Mapping[str, tuple[str, int, int]]
    shard_lengths: Mapping[str, tuple[int, ...]]
    clips: Mapping[str, dict]
    rejects: list[dict]

    @property
    def content_digest(self) -> str:
        return digest(
            [[self.places[id][0], id, clip["label"], clip["content_hash"]] for id, clip in sorted(self.clips.items())]
        )


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
      DatasetError: as `assign_splits`.
    """
    lines = list(index_lines)
    rejects = [line for line in lines if "reason" in line]
    clips = {line["id"]: line for line in lines if "reason" not in line}
    rejects = sorted(rejects + _drop_contradictions(clips), key=lambda line: line["path"])
    _check_rejects(rejects, clips, class_names, max_reject_fraction)
    items = [
        Item(id=id, label=clip["label"], group=clip["group"], content_hash=clip["content_hash"], split=clip["split"])
        for id, clip in clips.items()
    ]
    split_of = assign_splits(items, settings.split)
    by_split = collections.defaultdict(list)
    for id, split in split_of.items():
        by_split[split].append(id)
    places, shard_lengths = {}, {}
    for split in SPLIT_NAMES:
        ids = sorted(by_split[split], key=lambda id: hashlib.sha256(f"shard\n{id}".encode()).digest())
        if not ids:
            continue
        wanted = settings.num_shards or max(_MIN_SHARDS, -(-len(ids) * bytes_per_clip // _MAX_SHARD_BYTES))
        num_shards = min(wanted, len(ids))
        bounds = [len(ids) * i // num_shards for i in range(num_shards + 1)]
        shard_lengths[split] = tuple(end - start for start, end in zip(bounds, bounds[1:]))
        for shard, (start, end) in enumerate(zip(bounds, bounds[1:])):
            places.update({id: (split, shard, place) for place, id in enumerate(ids[start:end])})
    return Plan(places, shard_lengths, clips, rejects)


def _check_rejects(
    rejects: list[dict], clips: Mapping[str, dict], class_names: Sequence[str], max_fraction: float
) -> None:
    total = len(rejects) + len(clips)
    if len(rejects) > max_fraction * total:
        enough = math.ceil(100 * len(rejects) / total) / 100
        raise InputRejected(
            f"{len(rejects)} of {total} inputs can't be used, more than --max_reject_fraction={max_fraction:g} "
            f"allows: mend or remove them, or run again with --max_reject_fraction={enough:g}",
            rejects,
        )
    usable = {clip["label"] for clip in clips.values()}
    for name in class_names:
        if name not in usable:
            raise InputRejected(
                f"no recording of class {name!r} can be used: mend them, or take the class out of the input", rejects
            )


def _drop_contradictions(clips: dict[str, dict]) -> list[dict]:
    """Remove equal audio that stands under several labels from `clips`; returns the rejects, each naming its twin."""
    by_content = collections.defaultdict(list)
    for clip in clips.values():
        by_content[clip["content_hash"]].append(clip)
    rejects = []
    for same in by_content.values():
        if len({clip["label"] for clip in same}) == 1:
            continue
        for clip in same:
            twin = next(other for other in same if other["label"] != clip["label"])
            del clips[clip["id"]]
            rejects.append(
                {
                    "path": clip["recording"],
                    "label": clip["label"],
                    "stage": "duplicate",
                    "content_hash": clip["content_hash"],
                    "reason": f"equal audio, in the seconds used, under another label: {twin['recording']} is "
                    f"{twin['label']!r}",
                }
            )
    return rejects
