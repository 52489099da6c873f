"""Features that another dataset holds already, found by the audio they are of: the network need not run for them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np

from tfdata import bulk_reads, layout, records, schema, shards
from tfdata.lineage import arrays_differ
from tfdata.spec import ArraySpec, DatasetError, DatasetSpec

Key = tuple[int, str, str]  # variant, clip id where it plays a part, content hash


def feature_key(clip: schema.Clip, variant: int) -> Key:
    """Clips of one key have one array: variants are drawn by the clip's id, a clip itself follows from its audio."""
    return variant, clip.id if variant else "", clip.content_hash


@dataclasses.dataclass(frozen=True)
class HeldFeatures:
    """Where each feature stands: path, and the first and last byte of its record."""

    array: ArraySpec
    places: Mapping[Key, tuple[str, int, int]]

    def read(self, keys: Sequence[Key]) -> list[np.ndarray]:
        """The features of these keys, all of which are held, as they are stored.

        Raises:
          DatasetError: a record was changed since it was looked up.
        """
        places = [self.places[key] for key in keys]
        found = bulk_reads.read_ranges(*(list(column) for column in zip(*places))) if places else []
        features = []
        for record, (path, start, _), wanted in zip(found, places, keys):
            try:
                values = records.decode_example(record)
                features.append(schema.decode_array(record, self.array))
                same = values["content_hash"].decode() == wanted[2]
            except Exception:  # protobuf's errors have no class in common
                same = False
            if not same:
                raise DatasetError(
                    f"{path} was changed while features were taken from it (at byte {start}): start again"
                )
        return features

    def to_json(self) -> str:
        """For machines that get it as a file."""
        return json.dumps({"array": dataclasses.asdict(self.array), "places": list(self.places.items())})

    @classmethod
    def from_json(cls, text: str) -> "HeldFeatures":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        array = ArraySpec(**{**fields["array"], "shape": tuple(fields["array"]["shape"])})
        return cls(array, {tuple(key): tuple(place) for key, place in fields["places"]})


def held_features(directory: str, spec: DatasetSpec, clips: DatasetSpec) -> tuple[HeldFeatures, str | None]:
    """Look up all features in `directory` that are of use for `clips`, every shard checked.

    Returns:
      the features held, and why there are none, where no clip of the two datasets could have the same log-mel.
    Raises:
      DatasetError: a shard is missing or damaged.
    """
    if reason := arrays_differ(spec, clips):
        return HeldFeatures(spec.array, {}), reason
    places: dict[Key, tuple[str, int, int]] = {}
    numbers = {split: 0 for split in spec.splits}
    for split in spec.splits:
        numbers |= {name: number for number, name in enumerate(layout.variant_splits(spec, split), start=1)}
    for split, variant in numbers.items():
        for shard in shards.of_split(directory, spec, split):
            end = 0
            for record in shards.read(shard):
                clip, _ = schema.decode_clip(record, spec)
                start = end + records.BEFORE_RECORD
                end += records.framed_size(record)
                places.setdefault(feature_key(clip, variant), (shard.path, start, start + len(record)))
    return HeldFeatures(spec.array, places), None
