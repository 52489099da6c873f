"""The shards of a dataset and their records, checked against what the spec says was written; without TensorFlow."""

import dataclasses
import hashlib
import posixpath

from tfdata import layout, records, storage
from tfdata.spec import DatasetError, DatasetSpec


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard file as the spec knows it: its path, the clips in it, and the sha256 of its bytes."""

    path: str
    num_clips: int
    digest: str

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


def of_split(directory: str, spec: DatasetSpec, split: str) -> list[Shard]:
    """The shards of a split in order."""
    info = spec.splits[split]
    paths = layout.shard_paths(directory, spec, split)
    return [Shard(*known) for known in zip(paths, info.shard_lengths, info.shard_digests, strict=True)]


def read(shard: Shard, *, copy: str | None = None) -> list[bytes]:
    """The records of a shard, whole and as they were written.

    Args:
      copy: a local copy to read instead.
    Raises:
      DatasetError: it is missing, damaged, or another one than was written; names it.
    """
    try:
        data = storage.read_bytes(copy or shard.path)
    except FileNotFoundError as error:
        raise DatasetError(f"{shard.path} is missing: make the dataset again") from error
    found = list(records.unframe(data, where=shard.path))
    if len(found) != shard.num_clips:
        raise DatasetError(
            f"{shard.path} holds {len(found)} clips, {layout.SPEC} says {shard.num_clips}: make the dataset again"
        )
    if hashlib.sha256(data).hexdigest() != shard.digest:
        raise DatasetError(
            f"{shard.path} is whole, but not the shard that was written: it is another dataset's, or was exchanged or "
            "edited; make the dataset again"
        )
    return found
