"""What a dataset directory says about itself: `spec.json` as frozen dataclasses, and its fingerprint.

Standard library only, so that a prepare worker or a script can read a spec without TensorFlow or Beam.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA_VERSION = 3
# 3 added `parity` and what `parent` tells of the clips; of neither does a dataset of version 2 need anything.
_READABLE_VERSIONS = (2, SCHEMA_VERSION)
_FINGERPRINT_VERSION = 2  # raised when what enters the fingerprint changes, not with every field that is added
LOG_MEL = "log_mel"
FEATURES = "features"
SPLIT_NAMES = ("train", "validation", "test")
_VARIANT = "_variant"


class DatasetError(ValueError):
    """A dataset directory, or what should become one, is not as it must be."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare white space: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of `value`'s canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def variant_name(split: str, number: int) -> str:
    """The split that holds variant `number` (from 1) of the clips of `split`."""
    return f"{split}{_VARIANT}{number}"


def is_variant(split: str) -> bool:
    """Whether a split of this name holds changed copies of another split's clips."""
    return _VARIANT in split


def content_digest(clips: Iterable[tuple[str, str, str, str, int]]) -> str:
    """sha256 over each clip's split, id, class name, content hash and fold, in whatever order they come."""
    return digest(sorted(map(list, clips)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """The one array of each example, stored as little-endian bytes.

    Attributes:
      name: its key in the record, "log_mel" or "feature".
      shape: static shape; log-mel [n_mels, frames], feature [3, 3, 1536].
      dtype: "float16" or "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self):
        if self.dtype not in ("float16", "float32"):
            raise DatasetError(f"precision must be float16 or float32, got {self.dtype!r}")

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * {"float16": 2, "float32": 4}[self.dtype]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split as written.

    Attributes:
      shard_lengths: clips in each shard.
      shard_digests: sha256 of each shard's bytes, so that an exchanged or changed shard is noticed.
      class_counts: clips in each class, ordered as `class_names`.
      num_bytes: of all shards.
    """

    shard_lengths: tuple[int, ...]
    shard_digests: tuple[str, ...]
    class_counts: tuple[int, ...]
    num_bytes: int

    @property
    def num_clips(self) -> int:
        return sum(self.shard_lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Everything a reader needs to know of a dataset directory.

    Attributes:
      kind: LOG_MEL or FEATURES.
      array: the array of each example.
      class_names: label i is class_names[i].
      metadata_columns: the manifest's own columns, stored in each record under metadata/COLUMN.
      settings: every resolved setting of the stage that wrote it.
      statistics: measured values (of the training split where a model may use them).
      splits: name to SplitInfo.
      content_digest: see the function of that name.
      num_recordings, num_rejects: inputs used, inputs refused (rejects.jsonl names them).
      leak_audit: near-copies across splits and what they are worth to a quick probe; None where it was not made.
      parent: for features, the clips they were made from: "fingerprint", "path", and what `lineage` compares.
      parity: for features, how near stored ones are to those computed anew, see `model.parity`; does not enter the
        fingerprint. None where it was not measured.
      provenance: paths, versions and the command; tells people, does not enter the fingerprint.
    """

    kind: str
    array: ArraySpec
    class_names: tuple[str, ...]
    metadata_columns: tuple[str, ...]
    settings: Mapping[str, Any]
    statistics: Mapping[str, Any]
    splits: Mapping[str, SplitInfo]
    content_digest: str
    num_recordings: int
    num_rejects: int
    leak_audit: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def num_clips(self) -> int:
        """Real clips only: the changed copies in variant splits are not counted."""
        return sum(split.num_clips for name, split in self.splits.items() if not is_variant(name))

    @property
    def records_digest(self) -> str:
        """sha256 over all shards' digests: of every byte of the records, groups and metadata too."""
        return digest({name: split.shard_digests for name, split in self.splits.items()})

    @property
    def fingerprint(self) -> str:
        """sha256 over what the clips are and how they were made: content, settings, parent. No path enters it."""
        return digest(
            {
                "schema_version": _FINGERPRINT_VERSION,
                "kind": self.kind,
                "array": dataclasses.asdict(self.array),
                "class_names": self.class_names,
                "metadata_columns": self.metadata_columns,
                "settings": self.settings,
                "content_digest": self.content_digest,
                "splits": {name: split.shard_lengths for name, split in self.splits.items()},
                "parent": self.parent["fingerprint"] if self.parent else None,
            }
        )

    def to_json(self) -> str:
        return (
            json.dumps({"fingerprint": self.fingerprint, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"
        )

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "DatasetSpec":
        """Parse a spec; `where` names it in errors.

        Raises:
          DatasetError: not JSON, another schema version, missing or unknown fields, or edited by hand
            (its fingerprint is not that of its content).
        """
        try:
            fields = json.loads(text)
            stored = fields.pop("fingerprint")
            version = fields.get("schema_version")
            if version not in _READABLE_VERSIONS:
                raise DatasetError(
                    f"{where} has schema version {version}, this melcache reads {_READABLE_VERSIONS}: "
                    "make the dataset again, or use the melcache that wrote it"
                )
            fields["array"] = ArraySpec(**{**fields["array"], "shape": tuple(fields["array"]["shape"])})
            fields["splits"] = {
                name: SplitInfo(
                    shard_lengths=tuple(split["shard_lengths"]),
                    shard_digests=tuple(split["shard_digests"]),
                    class_counts=tuple(split["class_counts"]),
                    num_bytes=split["num_bytes"],
                )
                for name, split in fields["splits"].items()
            }
            fields["class_names"] = tuple(fields["class_names"])
            fields["metadata_columns"] = tuple(fields["metadata_columns"])
            spec = cls(**fields)
        except DatasetError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DatasetError(f"{where} is not a dataset spec ({type(error).__name__}: {error})") from error
        if stored != spec.fingerprint:
            raise DatasetError(
                f"{where} was changed after it was written: it says fingerprint {stored[:12]}, "
                f"its content gives {spec.fingerprint[:12]}; make the dataset again"
            )
        return spec
