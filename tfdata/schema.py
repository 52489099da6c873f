"""The fields of one example: the only file that names the record's keys.

    id          string   RECORDING@START_S, unique in the dataset
    recording   string   path of the audio file, relative to the input
    start_s     float    where in the recording the clip starts, seconds
    label       int      index into class_names
    group       string   recordings of one group never stand in two splits
    metadata/X  string   column X of the manifest
    log_mel | feature    bytes: the array, little-endian (ArraySpec tells shape and dtype)

Feature datasets carry the same fields as the clips they were made from, with the array exchanged.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfdata import records
from tfdata.spec import ArraySpec, DatasetSpec

METADATA_PREFIX = "metadata/"
_STRING, _INT, _FLOAT = "string", "int64", "float32"
FIELDS = {"id": _STRING, "recording": _STRING, "start_s": _FLOAT, "label": _INT, "group": _STRING}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """What an example says about itself, beside its array. Label as an index, times in seconds."""

    recording: str
    start_s: float
    label: int
    group: str
    metadata: Mapping[str, str]

    @property
    def id(self) -> str:
        return f"{self.recording}@{self.start_s:g}"


def fields(metadata_columns) -> dict[str, str]:
    """All fields but the array: key to "string", "int64" or "float32"."""
    return {**FIELDS, **{METADATA_PREFIX + column: _STRING for column in metadata_columns}}


def _array_bytes(array: np.ndarray, spec: ArraySpec) -> bytes:
    if array.shape != spec.shape:
        raise ValueError(f"{spec.name} must have shape {spec.shape}, got {array.shape}")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, np.dtype(spec.dtype).newbyteorder("<"))
    if not np.isfinite(stored).all():
        raise ValueError(f"{spec.name} has values that {spec.dtype} can't hold (up to {np.nanmax(np.abs(array)):.3g})")
    return stored.tobytes()


def encode_clip(clip: Clip, array: np.ndarray, spec: ArraySpec) -> bytes:
    """Serialise one clip with its array (shape `spec.shape`, cast to `spec.dtype`)."""
    return records.encode_example(
        {
            "id": clip.id.encode(),
            "recording": clip.recording.encode(),
            "start_s": float(clip.start_s),
            "label": clip.label,
            "group": clip.group.encode(),
            **{METADATA_PREFIX + column: value.encode() for column, value in clip.metadata.items()},
            spec.name: _array_bytes(array, spec),
        }
    )


def exchange_array(record: bytes, old: ArraySpec, array: np.ndarray, new: ArraySpec) -> bytes:
    """The same clip with another array: how a feature example is made from a clip example."""
    values = records.decode_example(record)
    del values[old.name]
    return records.encode_example({**values, new.name: _array_bytes(array, new)})


def decode_clip(record: bytes, spec: DatasetSpec) -> tuple[Clip, np.ndarray]:
    """The inverse of `encode_clip`."""
    values = records.decode_example(record)
    clip = Clip(
        recording=values["recording"].decode(),
        start_s=round(values["start_s"], 6),
        label=values["label"],
        group=values["group"].decode(),
        metadata={column: values[METADATA_PREFIX + column].decode() for column in spec.metadata_columns},
    )
    array = np.frombuffer(values[spec.array.name], np.dtype(spec.array.dtype).newbyteorder("<"))
    return clip, array.reshape(spec.array.shape)
