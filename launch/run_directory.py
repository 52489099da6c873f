"""The run directory that `melcache heads` writes: its names, and reading it.

heads.json                 written last: what was trained on what, and the results of all heads
SETUP/seed0/settings.json  resolved settings
            metrics.jsonl  one line for each epoch
            answers.npy    class number given to each test clip, uint16; other_answers.npy: of another collection
            result.json    written last in its folder: results at the chosen epoch, or why there are none
            head.keras     features as stored to probabilities (--save_heads)
            predictions.jsonl   one line for each test clip: id, label, probabilities (--save_heads)
SETUP/random_split/seed0, SETUP/fold2/seed0, SETUP/fraction0.5/seed0      the same setup on other divisions of the clips
"""

import io
import json
from typing import Any

import numpy as np

from tfdata import storage
from tfdata.spec import DatasetError

HEADS, SETTINGS, RESULT, METRICS = "heads.json", "settings.json", "result.json", "metrics.jsonl"
ANSWERS, OTHER_ANSWERS = "answers.npy", "other_answers.npy"
MODEL, PREDICTIONS = "head.keras", "predictions.jsonl"


def seed_folder(run: str, setup: str, seed: int, division: str = "") -> str:
    return storage.join(run, setup, *([division] if division else []), f"seed{seed}")


def read_heads(run: str) -> dict[str, Any]:
    """heads.json of a finished run.

    Raises:
      DatasetError: there is none.
    """
    path = storage.join(run, HEADS)
    if not storage.exists(path):
        raise DatasetError(f"no finished heads in {run} (no {HEADS}): run melcache heads --output={run}")
    return json.loads(storage.read_text(path))


def read_result(run: str, setup: str, seed: int) -> dict[str, Any]:
    return json.loads(storage.read_text(storage.join(seed_folder(run, setup, seed), RESULT)))


def read_metrics(run: str, setup: str, seed: int) -> list[dict[str, float]]:
    """One dictionary for each epoch."""
    text = storage.read_text(storage.join(seed_folder(run, setup, seed), METRICS))
    return [json.loads(line) for line in text.splitlines()]


def read_answers(run: str, setup: str, seed: int, name: str = ANSWERS) -> np.ndarray:
    """Class number given to each test clip (OTHER_ANSWERS: of another collection), uint16 [n], in stored order."""
    return np.load(io.BytesIO(storage.read_bytes(storage.join(seed_folder(run, setup, seed), name))))
