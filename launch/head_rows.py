"""The results of heads as flat rows, the same for scripts, tables and reports; ranked where they are many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from model import thesis

Row = Mapping[str, Any]
SEARCH = 8  # more heads than these are a search: ranked, and the first of them is a choice among many


def rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every head and baseline as one flat dictionary; all have the same keys, with None where there is no such value.

    Heads stand in the order of the document, or by validation accuracy where they are more than SEARCH; baselines last.

    Args:
      document: {"results": [...], "baselines": [...]} of heads.json. Accuracies are from 0 to 1, intervals [low, high];
        `test_accuracy_interval` is over seeds, `test_accuracy_test_set_interval` over the test recordings drawn.
    Returns:
      rows with "name", "kind" ("head" or "baseline"), "rank" by validation accuracy from 1 (None where there is no
      search), "settings", "varied", "num_seeds", the accuracies and losses, "thesis_test_accuracy" and
      "thesis_test_loss" of the thesis's setup of that name.
    """
    ranked = is_ranked(document["results"])
    heads = by_validation(document["results"]) if ranked else document["results"]
    found = [_flat(row, "head", rank if ranked else None) for rank, row in enumerate(heads, 1)]
    return found + [_flat(row, "baseline", None) for row in document.get("baselines", [])]


def is_ranked(results: Sequence[Row]) -> bool:
    """Whether the heads are a search that a validation split can rank."""
    return len(results) > SEARCH and any(number(row.get("validation_accuracy")) is not None for row in results)


def by_validation(results: Sequence[Row]) -> list[Row]:
    """Best validation accuracy first; equal ones in the order given, those without one last."""

    def key(row):
        accuracy = number(row.get("validation_accuracy"))
        return math.inf if accuracy is None else -accuracy

    return sorted(results, key=key)


def _flat(row: Row, kind: str, rank: int | None) -> dict[str, Any]:
    random_split, folds, other = (row.get(key) or {} for key in ("random_split", "folds", "other_collection"))
    reported = thesis.REPORTED.get(row["name"]) if kind == "head" else None
    return {
        "name": row["name"],
        "kind": kind,
        "rank": rank,
        "settings": row.get("settings"),
        "varied": row.get("varied") or {},
        "num_seeds": len(row["seeds"]) if "seeds" in row else None,
        **{key: number(row.get(key)) for key in ("test_accuracy", "test_loss")},
        **{key: row.get(key) for key in ("test_accuracy_interval", "test_accuracy_test_set_interval")},
        **{key: number(row.get(key)) for key in ("validation_accuracy", "train_accuracy")},
        "random_split_accuracy": number(random_split.get("test_accuracy")),
        "random_split_interval": random_split.get("test_accuracy_interval"),
        "folds_accuracy": number(folds.get("accuracy")),
        "folds_interval": folds.get("accuracy_interval"),
        "num_folds": folds.get("num_folds"),
        "other_collection_accuracy": number(other.get("accuracy")),
        "other_collection_interval": other.get("accuracy_interval"),
        "other_collection_num_clips": other.get("num_clips"),
        "thesis_test_accuracy": reported.test_accuracy if reported else None,
        "thesis_test_loss": reported.test_loss if reported else None,
    }


def number(value: float | None) -> float | None:
    """None too for what a head that diverged has instead of a number."""
    return value if value is not None and math.isfinite(value) else None
