"""The folder of one trained head: what it was trained with, how it went, what it answers (names: run_directory.py)."""

import dataclasses
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch import quiet, run_directory
from launch.head_divisions import OWN
from launch.head_work import HeadTask
from model.head_inputs import OTHER, TEST, HeadInputs
from model.heads import Diverged, TrainedHead, test_metrics
from tfdata import storage


def write(folder: str, task: HeadTask, head: TrainedHead | Diverged, result: Mapping[str, Any], *, recorded) -> None:
    """Write what a head's folder always holds, its result last.

    Args:
      recorded: what its settings.json says beside its settings: class_names, features and what else decided it.
    """
    settings = {**dataclasses.asdict(task.settings), "seed": task.seed, **recorded}
    _write_json(storage.join(folder, run_directory.SETTINGS), settings)
    if isinstance(head, TrainedHead):
        storage.write_text(storage.join(folder, run_directory.METRICS), _lines(head.history))
        if task.division.kind == OWN:
            storage.write_bytes(storage.join(folder, run_directory.ANSWERS), _answers(head.probabilities[TEST]))
            if len(head.probabilities[OTHER]):
                answers = _answers(head.probabilities[OTHER])
                storage.write_bytes(storage.join(folder, run_directory.OTHER_ANSWERS), answers)
    _write_json(storage.join(folder, run_directory.RESULT), result)


def save(folder: str, inputs: HeadInputs, head: TrainedHead, *, class_names, test_ids: Sequence[str]) -> None:
    """Write the model and its answers on each test clip; before `write`, which says that the folder is whole."""
    quiet.import_tensorflow()  # only where a head is saved
    from model.saved_head import keras_head

    storage.write_bytes(storage.join(folder, run_directory.MODEL), _saved(keras_head(inputs, head)))
    rows = zip(test_ids, inputs.labels["test"], head.probabilities["test"], strict=True)
    predictions = (
        {"id": id, "label": class_names[label], "probabilities": [round(float(p), 6) for p in answer]}
        for id, label, answer in rows
    )
    storage.write_text(storage.join(folder, run_directory.PREDICTIONS), _lines(predictions))


def unsave(folder: str) -> None:
    """Remove what `save` wrote."""
    for name in (run_directory.MODEL, run_directory.PREDICTIONS):
        if storage.exists(storage.join(folder, name)):
            storage.remove(storage.join(folder, name))


def result_of(task: HeadTask, inputs: HeadInputs, head: TrainedHead | Diverged, *, stale: str | None) -> dict[str, Any]:
    """What result.json says of a head."""
    about = {"seed": task.seed, **({"stale": stale} if stale else {})}
    if isinstance(head, Diverged):
        return {**about, "failed": str(head)}
    tested = test_metrics(head.probabilities["test"], inputs.labels["test"])
    chosen = head.history[head.epoch - 1]
    return {
        **about,
        "epoch": head.epoch,
        "num_epochs": len(head.history),
        "num_train_clips": inputs.division.num_train_clips,
        "num_test_clips": len(inputs.labels["test"]),
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
        "confusion": tested["confusion"],
        **{name: chosen[name] for name in chosen if name not in ("epoch", "learning_rate")},
    }


def _answers(probabilities: np.ndarray) -> bytes:
    """The class number given to each clip, as .npy: small enough to keep of every head of a search."""
    file = io.BytesIO()
    np.save(file, probabilities.argmax(axis=1).astype(np.uint16))
    return file.getvalue()


def _saved(model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # Keras saves to local paths only
        path = os.path.join(folder, run_directory.MODEL)
        model.save(path)
        with open(path, "rb") as file:
            return file.read()


def _write_json(path: str, value) -> None:
    storage.write_text(path, json.dumps(value, indent=2) + "\n")


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
