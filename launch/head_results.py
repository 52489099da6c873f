"""From the results of single heads to the rows, intervals, comparisons and curves of heads.json."""

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch import run_directory
from launch.head_divisions import FOLD, FRACTION, OWN, RANDOM_SPLIT
from launch.head_work import HeadTask
from model.comparison import group_bootstrap, holm, mean_interval, paired
from model.head_inputs import LabelledFeatures
from model.head_settings import HeadSettings

_COMPARED = 5  # of many setups, how many are compared with each other
Results = Sequence[tuple[HeadTask, Mapping[str, Any]]]


def rows(
    setups: Mapping[str, HeadSettings],
    varied: Mapping[str, Mapping[str, Any]],
    results: Results,
    *,
    run: str,
    test_labels: np.ndarray,
    test_groups: np.ndarray,
    other: LabelledFeatures | None = None,
    other_groups: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """A table row for each setup; one whose heads all diverged has only "failed" beside its settings."""
    by_setup: dict[str, list] = {name: [] for name in setups}
    # In one order, whichever head ended first: sums of floats depend on it.
    for task, result in sorted(results, key=lambda pair: (repr(pair[0].division), pair[0].seed)):
        by_setup[task.setup].append((task, result))
    return [
        {
            "name": name,
            "settings": dataclasses.asdict(settings),
            "varied": dict(varied.get(name, {})),
            **(row := _row(name, by_setup[name], run, test_labels, test_groups)),
            "other_collection": _other_collection(name, row["seeds"], run, other, other_groups),
        }
        for name, settings in setups.items()
    ]


def _row(name: str, results: Results, run: str, test_labels, test_groups) -> dict[str, Any]:
    own = _of(results, OWN)
    good = [result for result in own if "failed" not in result]
    failed = [f"seed {result['seed']}: {result['failed']}" for result in own if "failed" in result]
    row: dict[str, Any] = {"seeds": [result["seed"] for result in good], "failed": failed}
    if not good:
        return row
    correct = np.stack([run_directory.read_answers(run, name, seed) == test_labels for seed in row["seeds"]])
    accuracy, interval = mean_interval([result["test_accuracy"] for result in good])
    return {
        **row,
        "test_accuracy": accuracy,
        "test_accuracy_interval": interval,
        "test_accuracy_test_set_interval": group_bootstrap(correct, test_groups, seed=0),
        "test_loss": _mean(good, "test_loss"),
        "validation_accuracy": _mean(good, "validation_accuracy"),
        "validation_loss": _mean(good, "validation_loss"),
        "train_accuracy": _mean(good, "train_accuracy"),
        "epoch": _mean(good, "epoch"),
        "random_split": _random_split(_of(results, RANDOM_SPLIT)),
        "folds": _folds(results),
        "learning_curve": _learning_curve(results, good),
    }


def _of(results: Results, kind: str) -> list[Mapping[str, Any]]:
    return [result for task, result in results if task.division.kind == kind]


def _mean(results: Sequence[Mapping], key: str) -> float | None:
    return statistics.fmean(result[key] for result in results) if results and key in results[0] else None


def _random_split(results: Sequence[Mapping]) -> dict | None:
    good = [result["test_accuracy"] for result in results if "failed" not in result]
    if not good:
        return None
    accuracy, interval = mean_interval(good)
    return {"test_accuracy": accuracy, "test_accuracy_interval": interval}


def _folds(results: Results) -> dict | None:
    """Accuracy of cross-validation: the interval is over folds, each the mean of its seeds."""
    by_fold: dict[int, list[float]] = {}
    for task, result in results:
        if task.division.kind == FOLD and "failed" not in result:
            by_fold.setdefault(task.division.fold, []).append(result["test_accuracy"])
    if not by_fold:
        return None
    accuracies = [statistics.fmean(by_fold[fold]) for fold in sorted(by_fold)]
    accuracy, interval = mean_interval(accuracies)
    return {
        "accuracy": accuracy,
        "accuracy_interval": interval,
        "num_folds": len(by_fold),
        "accuracies": accuracies,
    }


def _other_collection(name: str, seeds: Sequence[int], run: str, other, groups) -> dict | None:
    """Accuracy on another collection: the mean over seeds, its interval over the recordings drawn."""
    if other is None or not seeds:
        return None
    answers = np.stack([run_directory.read_answers(run, name, seed, run_directory.OTHER_ANSWERS) for seed in seeds])
    truth = other.labels[other.rows]
    return {
        "accuracy": float((answers == truth).mean()),
        "accuracy_interval": group_bootstrap(answers == truth, groups, seed=0),
        "num_clips": len(truth),
    }


def _learning_curve(results: Results, own: Sequence[Mapping]) -> list[dict]:
    """By fraction of the training clips; the whole is the setup's own result."""
    by_fraction: dict[float, list] = {}
    for task, result in results:
        if task.division.kind == FRACTION and "failed" not in result:
            by_fraction.setdefault(task.division.fraction, []).append(result)
    if not by_fraction:
        return []
    points = []
    for fraction, of_fraction in sorted({**by_fraction, 1.0: own}.items()):
        accuracy, interval = mean_interval([result["test_accuracy"] for result in of_fraction])
        num_clips = round(statistics.fmean(result["num_train_clips"] for result in of_fraction))
        points.append(
            {"fraction": fraction, "num_train_clips": num_clips, "test_accuracy": accuracy, "interval": interval}
        )
    return points


def comparisons(rows: Sequence[Mapping], *, run: str, test_labels: np.ndarray, test_groups: np.ndarray) -> list[dict]:
    """Pairs of setups on the same test clips and seeds: all pairs of a few, the best with the next of many.

    The best are those of the highest validation accuracy, never of the test's; without any, the first.
    """
    good = [row for row in rows if row["seeds"]]
    if len(good) > _COMPARED:
        good = sorted(good, key=lambda row: -(row["validation_accuracy"] or 0.0))[:_COMPARED]
        pairs = [(good[0], row) for row in good[1:]]
    else:
        pairs = list(itertools.combinations(good, 2))
    found = []
    for a, b in pairs:
        seeds = sorted(set(a["seeds"]) & set(b["seeds"]))
        if not seeds:
            continue
        correct = [
            np.stack([run_directory.read_answers(run, row["name"], seed) == test_labels for seed in seeds])
            for row in (a, b)
        ]
        compared = paired(*correct, test_groups, seed=0)
        found.append({"a": a["name"], "b": b["name"], **dataclasses.asdict(compared)})
    for pair, p_value in zip(found, holm([pair["p_value"] for pair in found])):
        pair["p_value_holm"] = p_value
    return found
