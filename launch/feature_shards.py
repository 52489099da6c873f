"""The feature shards of a job: which are still to do, what goes into the network for each, and how one is written.

They mirror the clip shards one to one: the same lengths and order, with the array exchanged. All engines share this.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from launch.held_features import HeldFeatures, feature_key
from tfdata import layout, records, schema, shards
from tfdata.augment import AugmentSettings, augment
from tfdata.spec import FEATURES, ArraySpec, DatasetError, DatasetSpec, variant_name
from tfdata.unfinished import Unfinished

VARIED = "train"


@dataclasses.dataclass(frozen=True)
class FeatureShard:
    """A shard of features that is to be written: the clip shard it mirrors, its own name, and which variant it holds.

    Variant 0 are the clips as they are.
    """

    source: shards.Shard
    name: str
    variant: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureShards:
    """The feature shards of a dataset that is being made. Picklable, so that workers can do one shard each.

    Attributes:
      data: clip dataset directory.
      clips: its spec.
      array: the stored features.
      unfinished: the job; `todo` and `write` are to be called while it is held.
      num_variants: changed copies of each training clip, beside the clips.
      augment: how they are changed.
      held: features that need not be computed, or None.
    """

    data: str
    clips: DatasetSpec
    array: ArraySpec
    unfinished: Unfinished
    num_variants: int = 0
    augment: AugmentSettings = AugmentSettings()
    held: HeldFeatures | None = None

    def splits(self) -> dict[str, tuple[str, int]]:
        """Each split of the features: the clips' split that it mirrors, and which variant of its clips it holds."""
        splits = {split: (split, 0) for split in self.clips.splits}
        if VARIED in splits:
            splits |= {variant_name(VARIED, number): (VARIED, number) for number in range(1, self.num_variants + 1)}
        return splits

    def names(self, split: str) -> list[str]:
        """The shards of one of `splits`."""
        source, _ = self.splits()[split]
        return layout.shard_names(FEATURES, split, len(self.clips.splits[source].shard_lengths))

    def all(self) -> list[FeatureShard]:
        """All shards, in the order of the dataset."""
        return [
            FeatureShard(source, name, variant)
            for split, (source_split, variant) in self.splits().items()
            for source, name in zip(
                shards.of_split(self.data, self.clips, source_split), self.names(split), strict=True
            )
        ]

    def todo(self) -> list[FeatureShard]:
        """The shards that are not written yet, in the order of the dataset."""
        return [shard for shard in self.all() if not self.unfinished.is_written(shard.name, shard.source.digest)]

    def log_mels(self, shard: FeatureShard, clip_records: Sequence[bytes]) -> np.ndarray:
        """What goes into the network: float32 [n, n_mels, frames] of the clips of `shard.source`, in their order.

        Raises:
          DatasetError: one has values that are not finite; names the clip. A compiled network may hide them, since its
            rectifiers turn what is not a number into 0.
        """
        found = np.empty((len(clip_records), *self.clips.array.shape), np.float32)
        for place, record in enumerate(clip_records):
            if shard.variant:
                clip, log_mel = schema.decode_clip(record, self.clips)
                found[place] = augment(
                    log_mel,
                    self.augment,
                    clip_id=clip.id,
                    variant=shard.variant,
                    log_mel_settings=self.clips.settings["log_mel"],
                )
            else:
                found[place] = schema.decode_array(record, self.clips.array)
            if not np.isfinite(found[place]).all():
                clip, _ = schema.decode_clip(record, self.clips)
                raise DatasetError(
                    f"the log-mel of {clip.id} ({shard.source.name}) has values that are not finite numbers: prepare "
                    "the clips anew"
                )
        return found

    def held_places(self, shard: FeatureShard, clip_records: Sequence[bytes]) -> list[bool]:
        """For each clip of `shard.source`, whether its feature is held."""
        if not self.held:
            return [False] * len(clip_records)
        return [key in self.held.places for key in self._keys(shard, clip_records)]

    def held_features(self, shard: FeatureShard, clip_records: Sequence[bytes]) -> list[np.ndarray]:
        """The features of those of these clips that are held, as they are stored, in order."""
        if not self.held:
            return []
        return self.held.read([key for key in self._keys(shard, clip_records) if key in self.held.places])

    def _keys(self, shard: FeatureShard, clip_records: Sequence[bytes]) -> list:
        return [feature_key(schema.decode_clip(record, self.clips)[0], shard.variant) for record in clip_records]

    def write(self, shard: FeatureShard, clip_records: Sequence[bytes], features: Iterable[np.ndarray]) -> None:
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
