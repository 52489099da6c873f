"""The rows that heads have to beat: linear classifiers on the features and on the raw log-mels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from launch.head_collection import Collection
from launch.head_divisions import OWN, RANDOM_SPLIT, DivisionName, divide
from model.baselines import LinearBaselines
from model.head_inputs import Division, LabelledFeatures
from model.heads import test_metrics
from tfdata import in_memory
from tfdata.spec import DatasetError

_MAX_TRAIN_CLIPS = 5_000  # what a general solver takes in minutes
_ROWS_AT_ONCE = 4096
RAW, FEATURES = "raw log-mel", "features"


def rows(collection: Collection, *, random_split: bool) -> list[dict[str, Any]]:
    """A table row for each baseline: on the raw log-mels where the clips are there, and on the features.

    More than 5,000 training clips are not taken; stored clips are shuffled, so that the first are a fair sample.
    """
    features, found = collection.features, []
    divisions = {
        kind: divide(DivisionName(kind), features, collection.spec)
        for kind in (OWN, *([RANDOM_SPLIT] if random_split else []))
    }
    num_classes = len(collection.spec.class_names)
    if collection.clips_path is not None:
        try:
            found += _of(_log_mels(collection), features.labels, divisions, num_classes, RAW)
        except (DatasetError, OSError) as error:  # of the clips, which heads do without
            found.append({"name": f"linear, {RAW}", "failed": str(error), "test_accuracy": None, "test_loss": None})
    return found + _of(features.array, features.labels, divisions, num_classes, FEATURES, other=collection.other)


def _log_mels(collection: Collection) -> np.ndarray:
    """The clips' log-mels in the rows of their features."""
    clips = in_memory.load(collection.clips_path, collection.clips_spec)
    array = np.zeros((len(collection.features.labels), *clips.array.shape[1:]), clips.array.dtype)
    for split in clips.splits:
        array[collection.features.rows(split)] = clips.array[clips.rows(split)]
    return array


def _of(
    array: np.ndarray,
    labels: np.ndarray,
    divisions: Mapping[str, Division],
    num_classes: int,
    of: str,
    other: LabelledFeatures | None = None,
) -> list[dict[str, Any]]:
    logistic: dict[str, Any] = {"name": f"logistic regression, {of}"}
    ridge: dict[str, Any] = {"name": f"ridge, {of}"}
    for kind, division in divisions.items():
        train = division.train[: min(division.num_train_clips, _MAX_TRAIN_CLIPS)]
        fitted = LinearBaselines(_flat(array, train), labels[train], num_classes=num_classes)
        tested, right = _test(fitted, array, labels, division.test)
        if kind != OWN:
            logistic[kind], ridge[kind] = {"test_accuracy": tested["accuracy"]}, {"test_accuracy": right}
            continue
        size = {"num_train_clips": len(train)}
        logistic |= {**size, "test_accuracy": tested["accuracy"], "test_loss": tested["loss"]}
        ridge |= {**size, "test_accuracy": right, "test_loss": None}
        if other is not None:
            num_clips = len(other.rows)
            tested, right = _test(fitted, other.features, other.labels, other.rows)
            logistic["other_collection"] = {"accuracy": tested["accuracy"], "num_clips": num_clips}
            ridge["other_collection"] = {"accuracy": right, "num_clips": num_clips}
    return [logistic, ridge]


def _test(fitted: LinearBaselines, array: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> tuple[dict, float]:
    """What logistic regression gives (`test_metrics`), and ridge's accuracy."""
    blocks = [_flat(array, rows[start : start + _ROWS_AT_ONCE]) for start in range(0, len(rows), _ROWS_AT_ONCE)]
    probabilities = np.concatenate([fitted.logistic(block) for block in blocks])
    answers = np.concatenate([fitted.ridge(block) for block in blocks])
    return test_metrics(probabilities, labels[rows]), float((answers == labels[rows]).mean())


def _flat(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    values = array[rows]
    return values.reshape(len(values), -1).astype(np.float32)
