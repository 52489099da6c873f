"""The dataset directory: what its files are called, how it is opened, and how it is declared complete.

spec.json                                   DatasetSpec
NAME-SPLIT.tfrecord-00000-of-00008 ...      examples; NAME is the dataset's kind
rejects.jsonl                               one line for each input not used (clip datasets)
dataset_info.json, features.json, label.labels.txt     for tfds.builder_from_directory
COMPLETED                                   written last; no reader accepts a directory without it
"""

import json

from tfdata import schema, storage
from tfdata.spec import FEATURES, LOG_MEL, DatasetError, DatasetSpec, variant_name

SPEC = "spec.json"
REJECTS = "rejects.jsonl"
COMPLETED = "COMPLETED"
_TFDS_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MADE_BY = {LOG_MEL: "melcache prepare", FEATURES: "melcache cache"}


def shard_names(kind: str, split: str, num_shards: int) -> list[str]:
    return [f"{kind}-{split}.tfrecord-{index:05d}-of-{num_shards:05d}" for index in range(num_shards)]


def shard_paths(directory: str, spec: DatasetSpec, split: str) -> list[str]:
    names = shard_names(spec.kind, split, len(spec.splits[split].shard_lengths))
    return [storage.join(directory, name) for name in names]


def variant_splits(spec: DatasetSpec, split: str) -> list[str]:
    """The splits of `spec` that hold changed copies of the clips of `split`, in the order of their numbers.

    Each mirrors it: shards of the same number and lengths, the same clips in the same order, with other arrays.
    """
    names = (variant_name(split, number) for number in range(1, len(spec.splits)))
    return [name for name in names if name in spec.splits]


def _all_shard_names(spec: DatasetSpec) -> list[str]:
    return [
        name for split, info in spec.splits.items() for name in shard_names(spec.kind, split, len(info.shard_lengths))
    ]


def stray_shards(directory: str, spec: DatasetSpec) -> list[str]:
    """Names of shards in `directory` that `spec` does not know."""
    known = set(_all_shard_names(spec))
    return [name for name in storage.list_names(directory) if ".tfrecord-" in name and name not in known]


def is_complete(directory: str) -> bool:
    return storage.exists(storage.join(directory, COMPLETED))


def read_spec(directory: str, kind: str | None = None) -> DatasetSpec:
    """Open a dataset directory.

    Args:
      directory: local or gs://.
      kind: LOG_MEL or FEATURES, where the caller can use only one.
    Raises:
      DatasetError: not there, not complete, changed after it was written, or of the other kind.
    """
    wanted = _MADE_BY.get(kind, "melcache prepare or melcache cache")
    if not storage.is_directory(directory):
        raise DatasetError(f"no dataset at {directory}: there is no such directory; make it with {wanted}")
    if not is_complete(directory):
        raise DatasetError(
            f"{directory} is not a complete dataset (no {COMPLETED} file): "
            f"run the {wanted} command that was to make it once more"
        )
    path = storage.join(directory, SPEC)
    try:
        text = storage.read_text(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{directory} says {COMPLETED} but has no {SPEC}: make the dataset again") from error
    spec = DatasetSpec.from_json(text, where=path)
    if kind is not None and spec.kind != kind:
        raise DatasetError(f"{directory} holds {spec.kind}, expected {kind}: give the directory that {wanted} wrote")
    return spec


def read_rejects(directory: str) -> list[dict]:
    path = storage.join(directory, REJECTS)
    if not storage.exists(path):
        return []
    return [json.loads(line) for line in storage.read_text(path).splitlines()]


def remove_stray_shards(directory: str, spec: DatasetSpec) -> None:
    """Remove shards of its kind that `spec` does not know: of an earlier plan, or of the dataset before it."""
    for name in stray_shards(directory, spec):
        if name.startswith(f"{spec.kind}-"):
            storage.remove(storage.join(directory, name))


def complete(directory: str, spec: DatasetSpec) -> None:
    """Write what describes the shards already there, COMPLETED last.

    Raises:
      DatasetError: a shard that the spec counts is missing.
    """
    present = set(storage.list_names(directory))
    missing = [name for name in _all_shard_names(spec) if name not in present]
    if missing:
        raise DatasetError(
            f"{directory} lacks {len(missing)} shards, the first is {missing[0]}: run the same command again"
        )
    for name, text in _tfds_files(spec).items():
        storage.write_text(storage.join(directory, name), text)
    storage.write_text(storage.join(directory, SPEC), spec.to_json())
    storage.write_text(storage.join(directory, COMPLETED), spec.fingerprint + "\n")


def _tfds_files(spec: DatasetSpec) -> dict[str, str]:
    """The descriptions that tensorflow_datasets.builder_from_directory reads."""
    module = "tensorflow_datasets.core.features."

    def tensor(dtype, shape=(), encoding="none"):
        dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
        return {
            "pythonClassName": module + "tensor_feature.Tensor",
            "tensor": {"shape": dimensions, "dtype": dtype, "encoding": encoding},
        }

    def field(kind):
        text = {"pythonClassName": module + "text_feature.Text", "text": {}}
        return text if kind == "string" else tensor(kind)

    features = {name: field(kind) for name, kind in schema.fields(()).items()}
    features["label"] = {
        "pythonClassName": module + "class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(len(spec.class_names))},
    }
    features[spec.array.name] = tensor(spec.array.dtype, spec.array.shape, "bytes")
    if spec.metadata_columns:
        features[schema.METADATA_PREFIX.rstrip("/")] = {
            "pythonClassName": module + "features_dict.FeaturesDict",
            "featuresDict": {"features": {column: field("string") for column in spec.metadata_columns}},
        }
    info = {
        "name": spec.kind,
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "description": f"melcache {spec.kind} dataset, fingerprint {spec.fingerprint}",
        "splits": [
            {
                "name": name,
                "filepathTemplate": _TFDS_TEMPLATE,
                "numBytes": str(split.num_bytes),
                "shardLengths": [str(length) for length in split.shard_lengths],
            }
            for name, split in spec.splits.items()
        ],
    }
    return {
        "features.json": json.dumps(
            {
                "type": module + "features_dict.FeaturesDict",
                "content": {"features": features},
                "proto_cls": "tensorflow_datasets.FeaturesDict",
            },
            indent=2,
        )
        + "\n",
        "dataset_info.json": json.dumps(info, indent=2) + "\n",
        "label.labels.txt": "".join(name + "\n" for name in spec.class_names),
    }
