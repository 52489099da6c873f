"""The run directory that `melcache heads` writes: names, reading, and the results as a table of text.

heads.json                 written last: what was trained on what, and the results of all runs
SETUP/seed0/head.keras     features to probabilities, standardisation included
            settings.json  resolved settings
            metrics.jsonl  one line for each epoch
            predictions.jsonl   one line for each test clip: id, label, probabilities
            result.json    written last in its folder: test result
"""

import json
from collections.abc import Mapping
from typing import Any

from model import thesis
from tfdata import storage
from tfdata.spec import DatasetError

HEADS, RESULT, METRICS = "heads.json", "result.json", "metrics.jsonl"


def seed_folder(run: str, setup: str, seed: int) -> str:
    return storage.join(run, setup, f"seed{seed}")


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


def table(document: Mapping[str, Any]) -> list[str]:
    """The results as lines of text: ours, and what the thesis reports for the setup of that name."""
    seeds = document["num_seeds"]
    lines = [
        f"{'':34}{'hidden':>10}{'Nesterov':>10}{'batch':>7}{'test loss':>11}"
        f"{'test acc.':>16}{'valid.':>8}{'thesis':>14}"
    ]
    for row in document["results"]:
        settings = row["settings"]
        spread = f" ± {row['test_accuracy_std']:.3f}" if row["test_accuracy_std"] is not None else ""
        reported = thesis.REPORTED.get(row["name"])
        beside = f"{reported.test_accuracy:.2f} ({reported.test_loss:.2f})" if reported else ""
        validation = "" if row["validation_accuracy"] is None else f"{row['validation_accuracy']:.3f}"
        lines.append(
            f"{row['name']:34}{'-'.join(map(str, settings['hidden_units'])):>10}"
            f"{'yes' if settings['nesterov'] else 'no':>10}{settings['batch_size']:>7}{row['test_loss']:>11.3f}"
            f"{row['test_accuracy']:>9.3f}{spread:<8}{validation:>7}{beside:>14}".rstrip()
        )
    for row in document["baselines"]:
        lines.append(f"{row['name']:34}{'':27}{row['test_loss']:>11.3f}{row['test_accuracy']:>9.3f}")
    lines.append(
        f"({seeds} seed{'s: mean ± deviation' if seeds > 1 else ''}; thesis: other recordings, ImageNet weights; "
        "test accuracy and loss)"
    )
    return lines
