"""The feature shards of a job: which are still to do, what goes into the network for each, and how one is written.

They mirror the clip shards one to one: the same lengths and order, with the array exchanged. All engines share this.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfdata import layout, records, schema, shards
from tfdata.spec import FEATURES, ArraySpec, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished


@dataclasses.dataclass(frozen=True)
class FeatureShard:
    """A shard of features that is to be written: the clip shard it mirrors, and its own name."""

    source: shards.Shard
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureShards:
    """The feature shards of a dataset that is being made. Picklable, so that workers can do one shard each.

    Attributes:
      data: clip dataset directory.
      clips: its spec.
      array: the stored features.
      unfinished: the job; `todo` and `write` are to be called while it is held.
    """

    data: str
    clips: DatasetSpec
    array: ArraySpec
    unfinished: Unfinished

    def names(self, split: str) -> list[str]:
        """The feature shards of a split, one for each clip shard."""
        return layout.shard_names(FEATURES, split, len(self.clips.splits[split].shard_lengths))

    def all(self) -> list[FeatureShard]:
        """All shards, in the order of the dataset."""
        return [
            FeatureShard(source, name)
            for split in self.clips.splits
            for source, name in zip(shards.of_split(self.data, self.clips, split), self.names(split), strict=True)
        ]

    def todo(self) -> list[FeatureShard]:
        """The shards that are not written yet, in the order of the dataset."""
        return [shard for shard in self.all() if not self.unfinished.is_written(shard.name, shard.source.digest)]

    def log_mels(self, shard: FeatureShard, clip_records: Sequence[bytes]) -> np.ndarray:
        """What goes into the network: float32 [n, n_mels, frames] of the clips of `shard.source`, in their order."""
        arrays = [schema.decode_array(record, self.clips.array) for record in clip_records]
        return np.stack(arrays).astype(np.float32) if arrays else np.empty((0, *self.clips.array.shape), np.float32)

    def write(self, shard: FeatureShard, clip_records: Sequence[bytes], features: Sequence[np.ndarray]) -> None:
        """Write a shard with its note.

        Args:
          clip_records: all records of `shard.source`, as `shards.read` gives them.
          features: float [*array.shape] for each.
        Raises:
          DatasetError: a feature is not a finite number, or too large for the stored precision; names the clip.
          OSError: it can't be written.
        """
        examples = []
        for record, feature in zip(clip_records, features, strict=True):
            try:
                examples.append(schema.exchange_array(record, self.clips.array, feature, self.array))
            except ValueError as error:
                clip, _ = schema.decode_clip(record, self.clips)
                raise DatasetError(
                    f"the network gave features of {clip.id} ({shard.source.name}) that can't be stored: {error}. "
                    "Are these the right weights? Values too large for float16 can be stored with --precision=float32"
                ) from error
        framed = records.frame(examples)
        self.unfinished.write_shard(shard.name, framed, num_clips=len(examples), content=shard.source.digest)
