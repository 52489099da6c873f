"""The clips of a split, read shard by shard with every checksum and digest checked, or loaded whole."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from tfdata import schema, shards, staging
from tfdata.spec import DatasetError, DatasetSpec


@dataclasses.dataclass(frozen=True)
class Split:
    """A whole split in memory: array [n, *shape], labels int32 [n], and each clip's description, in stored order."""

    array: np.ndarray
    labels: np.ndarray
    clips: list[schema.Clip]


def load_split(
    directory: str, spec: DatasetSpec, split: str, *, show_progress: bool = False, local_cache_dir: str | None = None
) -> Split:
    """Read one split whole, every checksum checked.

    Args:
      local_cache_dir: where remote shards are copied first, see `staging.stage`.
    Raises:
      DatasetError: a shard is missing, damaged, or holds another number of clips or another kind of them than the
        spec says; names the shard.
    """
    info = spec.splits[split]
    array = np.empty((info.num_clips, *spec.array.shape), spec.array.dtype)
    clips: list[schema.Clip] = []
    with tqdm(total=info.num_clips, desc=f"read {split}", unit=" clips", disable=not show_progress) as bar:
        for clip, value in read_split(directory, spec, split, local_cache_dir=local_cache_dir):
            array[len(clips)] = value
            clips.append(clip)
            bar.update()
    return Split(array=array, labels=np.array([clip.label for clip in clips], np.int32), clips=clips)


def read_split(
    directory: str, spec: DatasetSpec, split: str, *, local_cache_dir: str | None = None
) -> Iterator[tuple[schema.Clip, np.ndarray]]:
    """Each clip of a split and its array [*spec.array.shape], in stored order, a shard in memory at a time.

    Args:
      local_cache_dir: where remote shards are copied first, see `staging.stage`.
    Raises:
      DatasetError: as `load_split`.
    """
    for path, shard in _whole_shards(directory, spec, split, local_cache_dir):
        for record in shard:
            try:
                yield schema.decode_clip(record, spec)
            except (KeyError, ValueError, UnicodeDecodeError) as error:
                raise DatasetError(
                    f"{path} holds records of another dataset ({type(error).__name__}: {error}): make the dataset again"
                ) from error


def check_shards(directory: str, spec: DatasetSpec, *, local_cache_dir: str | None = None) -> None:
    """Read all shards of all splits and check their checksums and lengths.

    Args:
      local_cache_dir: where remote shards are copied first, see `staging.stage`.
    Raises:
      DatasetError: as `load_split`.
    """
    for split in spec.splits:
        for _ in _whole_shards(directory, spec, split, local_cache_dir):
            pass


def _whole_shards(
    directory: str, spec: DatasetSpec, split: str, local_cache_dir: str | None
) -> Iterator[tuple[str, list[bytes]]]:
    """Each shard's path and checked records."""
    known = shards.of_split(directory, spec, split)
    try:
        copies = staging.stage([shard.path for shard in known], local_cache_dir)
    except FileNotFoundError as error:
        raise DatasetError(f"{error} is missing: make the dataset again") from error
    for shard, copy in zip(known, copies):
        yield shard.path, shards.read(shard, copy=copy)
