"""The fields of one example: the only file that names the record's keys.

    id            string   RECORDING@START_S, unique in the dataset
    recording     string   path of the audio file, relative to the input
    start_s       float    where in the recording the clip starts, seconds (to the millisecond in the id)
    duration_s    float    seconds of audio in the clip; less than the clip's length where it was padded
    label         int      index into class_names
    group         string   recordings of one group never stand in two splits
    fold          int      0 to K - 1 for cross-validation; -1 where there are none, and for test clips
    content_hash  string   of the clip's samples as decoded: equal audio, equal hash
    peak, rms     float    largest and root mean square amplitude of those samples; 1 is full scale
    num_clipped   int      samples in runs of three or more at full scale
    metadata/X    string   column X of the manifest
    log_mel | feature      bytes: the array, little-endian (ArraySpec tells shape and dtype)

Feature datasets carry the same fields as the clips they were made from, with the array exchanged.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfdata import records
from tfdata.spec import ArraySpec, DatasetSpec

METADATA_PREFIX = "metadata/"
NO_FOLD = -1
_STRING, _INT, _FLOAT = "string", "int64", "float32"
FIELDS = {
    "id": _STRING,
    "recording": _STRING,
    "start_s": _FLOAT,
    "duration_s": _FLOAT,
    "label": _INT,
    "group": _STRING,
    "fold": _INT,
    "content_hash": _STRING,
    "peak": _FLOAT,
    "rms": _FLOAT,
    "num_clipped": _INT,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """What an example says about itself, beside its array; see the list above."""

    recording: str
    start_s: float
    duration_s: float
    label: int
    group: str
    fold: int = NO_FOLD
    content_hash: str
    peak: float
    rms: float
    num_clipped: int
    metadata: Mapping[str, str]

    @property
    def id(self) -> str:
        return clip_id(self.recording, self.start_s)


def clip_id(recording: str, start_s: float) -> str:
    return f"{recording}@{round(start_s, 3):.12g}"


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
    """Serialise one clip with its array (shape `spec.shape`, cast to `spec.dtype`).

    Raises:
      ValueError: another shape, or values that the dtype can't hold.
    """
    values = {"id": clip.id, **{name: getattr(clip, name) for name in FIELDS if name != "id"}}
    values |= {METADATA_PREFIX + column: value for column, value in clip.metadata.items()}
    encoded = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}
    return records.encode_example({**encoded, spec.name: _array_bytes(array, spec)})


def exchange_array(record: bytes, old: ArraySpec, array: np.ndarray, new: ArraySpec) -> bytes:
    """The same clip with another array: how a feature example is made from a clip example."""
    values = records.decode_example(record)
    del values[old.name]
    return records.encode_example({**values, new.name: _array_bytes(array, new)})


def set_fold(record: bytes, fold: int) -> bytes:
    """The same clip in another fold, which is known only when all clips are."""
    return records.encode_example({**records.decode_example(record), "fold": fold})


def decode_clip(record: bytes, spec: DatasetSpec) -> tuple[Clip, np.ndarray]:
    """The inverse of `encode_clip`.

    Raises:
      KeyError, ValueError: not a record of such a dataset.
    """
    values = records.decode_example(record)
    text = {key: value.decode() for key, value in values.items() if isinstance(value, bytes) and key != spec.array.name}
    values |= text
    array = _array_of(values, spec.array)
    # A 32-bit float is off by milliseconds after some hours; the id is exact.
    values["start_s"] = float(values["id"].rpartition("@")[2])
    metadata = {column: values[METADATA_PREFIX + column] for column in spec.metadata_columns}
    clip = Clip(metadata=metadata, **{name: values[name] for name in FIELDS if name != "id"})
    return clip, array


def decode_array(record: bytes, spec: ArraySpec) -> np.ndarray:
    """The array of a record alone, [*spec.shape] of spec.dtype.

    Raises:
      KeyError, ValueError: not a record with such an array.
    """
    return _array_of(records.decode_example(record), spec)


def _array_of(values: Mapping[str, bytes | int | float], spec: ArraySpec) -> np.ndarray:
    return np.frombuffer(values[spec.name], np.dtype(spec.dtype).newbyteorder("<")).reshape(spec.shape)
