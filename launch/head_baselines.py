"""The rows that heads have to beat: linear classifiers on the features and on the raw log-mels."""

from typing import Any

import numpy as np

from launch.head_collection import Collection
from launch.head_divisions import RANDOM_SPLIT, DivisionName, divide
from model.baselines import logistic_regression, ridge
from model.heads import test_metrics
from tfdata import in_memory

_MAX_TRAIN_CLIPS = 5_000  # what a general solver takes in minutes
RAW_LOGISTIC, RAW_RIDGE = "logistic regression, raw log-mel", "ridge, raw log-mel"
FEATURE_LOGISTIC, FEATURE_RIDGE = "logistic regression, features", "ridge, features"


def rows(collection: Collection, *, random_split: bool) -> list[dict[str, Any]]:
    """A table row for each baseline: on the raw log-mels where the clips are there, and on the features.

    More than 5,000 training clips are not taken; stored clips are shuffled, so that the first are a fair sample.
    """
    features, found = collection.features, []
    divisions = {"": divide(DivisionName(), features, collection.spec, validates=False, other=collection.other_rows)}
    if random_split:
        divisions[RANDOM_SPLIT] = divide(
            DivisionName(RANDOM_SPLIT), features, collection.spec, validates=False, other=collection.other_rows
        )
    num_classes = len(collection.spec.class_names)
    if collection.clips_path is not None:
        clips = in_memory.load(collection.clips_path, collection.clips_spec)
        raw = np.zeros((max(rows.stop for rows in features.splits.values()), *clips.array.shape[1:]), clips.array.dtype)
        for split in clips.splits:  # in the features' order
            raw[features.rows(split)] = clips.array[clips.rows(split)]
        found += _of(raw, features.labels, divisions, num_classes, RAW_LOGISTIC, RAW_RIDGE)
    return found + _of(features.array, features.labels, divisions, num_classes, FEATURE_LOGISTIC, FEATURE_RIDGE)


def _of(array: np.ndarray, labels: np.ndarray, divisions, num_classes: int, logistic_name, ridge_name) -> list[dict]:
    logistic, closed_form = {"name": logistic_name}, {"name": ridge_name}
    for name, division in divisions.items():
        train_rows = division.train[: min(division.num_train_clips, _MAX_TRAIN_CLIPS)]
        train, truth = _flat(array, train_rows), labels[train_rows]
        for part in ("test", "other"):
            tested = getattr(division, part)
            if not len(tested) or tested[-1] >= len(array) or (name and part == "other"):
                continue
            values, answers = _flat(array, tested), labels[tested]
            measured = test_metrics(logistic_regression(train, truth, values, num_classes=num_classes), answers)
            right = float((ridge(train, truth, values) == answers).mean())
            if part == "other":
                logistic["other_collection"] = {"accuracy": measured["accuracy"]}
                closed_form["other_collection"] = {"accuracy": right}
            elif name:
                logistic[name], closed_form[name] = {"test_accuracy": measured["accuracy"]}, {"test_accuracy": right}
            else:
                logistic |= {"num_train_clips": len(train_rows), "test_accuracy": measured["accuracy"],
                             "test_loss": measured["loss"]}  # fmt: skip
                closed_form |= {"num_train_clips": len(train_rows), "test_accuracy": right, "test_loss": None}
    return [logistic, closed_form]


def _flat(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return array[rows].reshape(len(rows), -1).astype(np.float32)
