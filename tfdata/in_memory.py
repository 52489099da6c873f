"""A whole dataset as arrays: in memory, or where it is too large for that mapped from a file on a local disk.

Without TensorFlow. A mapped file is made once for each dataset (its name is a digest of its records), so that a
second run opens it at once; throw the directory away when no run is using it.
"""

import dataclasses
import math
import os
import uuid
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from tfdata import clips, storage
from tfdata.spec import DatasetError, DatasetSpec

_PART_OF_MEMORY = 0.5


@dataclasses.dataclass(frozen=True)
class InMemory:
    """All clips of a dataset, split after split, each in stored order.

    Attributes:
      array: [clips, *shape] of the spec's dtype; not to be written to.
      labels: int32 [clips], index into class_names.
      folds: int32 [clips], -1 where there is none.
      ids, groups, content_hashes: bytes [clips], UTF-8.
      splits: name to the rows of that split.
    """

    array: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    content_hashes: np.ndarray
    splits: Mapping[str, slice]

    def rows(self, split: str) -> np.ndarray:
        """Row numbers int64 [n] of a split; none where there is no such split."""
        rows = self.splits.get(split, slice(0, 0))
        return np.arange(rows.start, rows.stop)


_COLUMNS = ("labels", "folds", "ids", "groups", "content_hashes")


def load(
    directory: str, spec: DatasetSpec, *, local_cache_dir: str | None = None, show_progress: bool = False
) -> InMemory:
    """Read a dataset whole, every checksum and digest checked.

    Args:
      local_cache_dir: a local directory: the array is mapped from a file in it, which is made where it isn't there.
        None holds all in memory.
    Raises:
      DatasetError: a shard is missing, damaged or another one than was written (names it), or there is not memory
        enough.
    """
    splits, start = {}, 0
    for name, info in spec.splits.items():
        splits[name] = slice(start, start + info.num_clips)
        start += info.num_clips
    shape = (start, *spec.array.shape)
    if local_cache_dir is None:
        _check_memory(directory, start * spec.array.num_bytes)
        array = np.empty(shape, spec.array.dtype)
        return InMemory(array, **_fill(array, directory, spec, show_progress), splits=splits)
    if storage.is_remote(local_cache_dir):
        raise DatasetError(f"--local_cache_dir={local_cache_dir} must be a directory on a local disk")
    os.makedirs(local_cache_dir, exist_ok=True)
    mapped = os.path.join(local_cache_dir, f"{spec.kind}-{spec.records_digest[:24]}.array")
    columns = mapped.replace(".array", ".npz")
    if not (os.path.exists(mapped) and os.path.exists(columns)):
        _make_mapped(mapped, columns, shape, directory, spec, show_progress)
    with np.load(columns) as stored:
        return InMemory(np.memmap(mapped, spec.array.dtype, "r", shape=shape), **stored, splits=splits)


def _make_mapped(mapped, columns, shape, directory, spec, show_progress) -> None:
    """Both files, each put in place whole, the columns last."""
    unique = f".{uuid.uuid4().hex}.tmp"
    try:
        with open(mapped + unique, "wb") as file:  # a full disk is told here, and kills a process that writes to a map
            if hasattr(os, "posix_fallocate"):  # macOS has none
                os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * np.dtype(spec.array.dtype).itemsize))
        array = np.memmap(mapped + unique, spec.array.dtype, "r+", shape=shape)
        filled = _fill(array, directory, spec, show_progress)
        array.flush()
        with open(columns + unique, "wb") as file:
            np.savez(file, **filled)
        os.replace(mapped + unique, mapped)
        os.replace(columns + unique, columns)
    finally:
        for path in (mapped + unique, columns + unique):
            if os.path.exists(path):
                os.remove(path)


def _fill(array, directory, spec, show_progress) -> dict[str, np.ndarray]:
    """Read all clips' arrays into `array`; returns the columns."""
    columns: dict[str, list] = {name: [] for name in _COLUMNS}
    with tqdm(total=len(array), desc=f"read {spec.kind}", unit=" clips", disable=not show_progress) as bar:
        every = (found for split in spec.splits for found in clips.read_split(directory, spec, split))
        for index, (clip, value) in enumerate(every):
            array[index] = value
            columns["labels"].append(clip.label)
            columns["folds"].append(clip.fold)
            columns["ids"].append(clip.id.encode())
            columns["groups"].append(clip.group.encode())
            columns["content_hashes"].append(clip.content_hash.encode())
            bar.update()
    integers = {name: np.array(columns[name], np.int32) for name in ("labels", "folds")}
    return {**integers, **{name: np.array(columns[name], "S") for name in ("ids", "groups", "content_hashes")}}


def _check_memory(directory: str, num_bytes: int) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # a system that does not tell
        return
    if num_bytes > memory * _PART_OF_MEMORY:
        raise DatasetError(
            f"{directory} takes {num_bytes / 2**30:.1f} GiB of memory, this machine has {memory / 2**30:.1f} GiB: give "
            "--local_cache_dir=DIR on a local disk, from which it is then mapped"
        )
