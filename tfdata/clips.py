"""Streams examples from a dataset directory with tf.data, and loads whole splits into memory."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfdata import layout, records, schema, storage
from tfdata.spec import ArraySpec, DatasetError, DatasetSpec


def stream_batches(
    paths: Sequence[str], spec: DatasetSpec, *, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (serialised examples, arrays) from shards, in the order they are stored, read ahead by tf.data.

    Args:
      paths: shards of a dataset of `spec`.
      batch_size: clips in a batch; the last one may be shorter.
    Yields:
      bytes [n], and the array [n, *spec.array.shape] of spec.array.dtype.
    """
    batches = tf.data.TFRecordDataset(list(paths)).batch(batch_size).map(_parser(spec.array))
    yield from batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _parser(array: ArraySpec):
    """Serialised examples [n] to themselves and their arrays."""
    feature = {array.name: tf.io.FixedLenFeature((), tf.string)}

    def parse(serialised):
        stored = tf.io.parse_example(serialised, feature)[array.name]
        values = tf.io.decode_raw(stored, array.dtype, little_endian=True)
        return serialised, tf.reshape(values, (-1, *array.shape))

    return parse


@dataclasses.dataclass(frozen=True)
class Split:
    """A whole split in memory: array [n, *shape], labels int32 [n], and each clip's description, in stored order."""

    array: np.ndarray
    labels: np.ndarray
    clips: list[schema.Clip]


def load_split(directory: str, spec: DatasetSpec, split: str, *, show_progress: bool = False) -> Split:
    """Read one split whole, every checksum checked.

    Raises:
      DatasetError: a shard is missing, damaged, or holds another number of clips or another kind of them than the
        spec says; names the shard.
    """
    info = spec.splits[split]
    array = np.empty((info.num_clips, *spec.array.shape), spec.array.dtype)
    clips: list[schema.Clip] = []
    with tqdm(total=info.num_clips, desc=f"read {split}", unit=" clips", disable=not show_progress) as bar:
        for path, length in zip(layout.shard_paths(directory, spec, split), info.shard_lengths):
            for record in _whole_shard(path, length):
                try:
                    clip, array[len(clips)] = schema.decode_clip(record, spec)
                except (KeyError, ValueError, UnicodeDecodeError) as error:
                    raise DatasetError(
                        f"{path} holds records of another dataset ({type(error).__name__}: {error}): "
                        "make the dataset again"
                    ) from error
                clips.append(clip)
            bar.update(length)
    return Split(array=array, labels=np.array([clip.label for clip in clips], np.int32), clips=clips)


def check_shards(directory: str, spec: DatasetSpec) -> None:
    """Read all shards of all splits and check their checksums and lengths.

    Raises:
      DatasetError: as `load_split`.
    """
    for split, info in spec.splits.items():
        for path, length in zip(layout.shard_paths(directory, spec, split), info.shard_lengths):
            _whole_shard(path, length)


def _whole_shard(path: str, length: int) -> list[bytes]:
    try:
        found = list(records.unframe(storage.read_bytes(path), where=path))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: make the dataset again") from error
    if len(found) != length:
        raise DatasetError(f"{path} holds {len(found)} clips, {layout.SPEC} says {length}: make the dataset again")
    return found
