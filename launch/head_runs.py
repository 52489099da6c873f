"""Trains heads on a feature dataset and writes a run directory: the library call behind `melcache heads`."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from launch import head_baselines, head_divisions, head_files, head_results, run_directory
from launch.head_collection import Collection, open_collection
from launch.head_divisions import FOLD, FRACTION, RANDOM_SPLIT, DivisionName
from launch.head_ranking import LiveRanking
from launch.head_work import HeadTask, train_all
from model.head_inputs import HeadInputs
from model.head_settings import HeadSettings
from model.heads import TrainedHead
from tfdata import layout, storage
from tfdata.spec import DatasetError
from tfdata.unfinished import Unfinished

SAVE_HEADS = ("all", "best", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadQuestions:
    """What is to be found out, beside how the heads do on the dataset's own splits.

    Attributes:
      random_split: the same heads on a random split of the same clips, groups torn apart, to see what that flatters.
      cross_validate: on the dataset's folds.
      learning_curve: fractions of the training clips, each above 0 and below 1.
      test_features: a feature dataset of another collection, tested on as a whole.
    """

    random_split: bool = False
    cross_validate: bool = False
    learning_curve: tuple[float, ...] = ()
    test_features: str | None = None


def train_heads(
    *,
    features: str,
    output: str,
    setups: Mapping[str, HeadSettings],
    num_seeds: int,
    provenance: Mapping[str, Any],
    show_progress: bool,
    varied: Mapping[str, Mapping[str, Any]] | None = None,
    questions: HeadQuestions = HeadQuestions(),
    data: str | None = None,
    save_heads: str = "all",
    allow_stale: bool = False,
    local_cache_dir: str | None = None,
    num_threads: int = 0,
) -> dict[str, Any]:
    """Train every setup with every seed, test each, and write all of it to `output`.

    Args:
      features: feature dataset directory.
      output: run directory to make; the same call continues an interrupted one, head by head.
      setups: name to settings.
      num_seeds: seeds 0 to num_seeds - 1.
      provenance: stored for people to read.
      varied: setup to what it varies in a search, for the table.
      questions: what else is to be found out.
      data: the clip dataset the features were made from, for the baseline on raw log-mels and to see whether it has
        changed; None takes the place that the features record, and goes without where it is not there any more.
      save_heads: "all", "none", or "best": only the head of the highest validation accuracy.
      allow_stale: train although the clips were changed since the features were made; every result says so.
      local_cache_dir: features are mapped from a file there instead of being held in memory.
      num_threads: heads trained at once; 0 is one for each core.
    Returns:
      the content of heads.json.
    Raises:
      DatasetError: the features are incomplete, damaged, stale, lack a split, or were made from other clips than
        `data`; another collection's features were made otherwise; `output` is in use; every head diverged.
      ValueError: settings that don't go with these clips.
    """
    collection = open_collection(features, data=data, test_features=questions.test_features, allow_stale=allow_stale)
    spec = collection.spec
    head_divisions.check_splits(features, spec)
    if save_heads == "best" and "validation" not in spec.splits:
        raise DatasetError(f"--save_heads=best needs a validation split, and {features} has none: save all or none")
    identity = {
        "features": spec.fingerprint,
        "features_records": spec.records_digest,
        "test_features": collection.other_spec.records_digest if collection.other_spec else None,
        "setups": {name: dataclasses.asdict(settings) for name, settings in setups.items()},
        "num_seeds": num_seeds,
        "random_split": questions.random_split,
        "cross_validate": questions.cross_validate,
        "learning_curve": list(questions.learning_curve),
        "save_heads": save_heads,
        "stale": collection.stale,
    }
    unfinished = Unfinished(output)
    with unfinished.held(done_marker=run_directory.HEADS):
        unfinished.check_same(identity)
        collection.load(local_cache_dir=local_cache_dir, show_progress=show_progress)
        tasks = _tasks(setups, num_seeds, questions, collection)
        unfinished.begin(identity)  # what can be refused has been
        baselines = head_baselines.rows(collection, random_split=questions.random_split)
        run = _Run(output, collection, save_heads=save_heads)
        run.train(tasks, num_threads=num_threads, show_progress=show_progress)
        document = {
            **identity,
            "features_path": storage.absolute(features),
            "weights": spec.settings["weights"],
            "class_names": spec.class_names,
            "num_clips": {name: split.num_clips for name, split in spec.splits.items()},
            "num_variants": len(layout.variant_splits(spec, "train")),
            "clips_seen": collection.clips_path is not None or collection.stale is not None,
            "unmatched": collection.unmatched,
            "saved": run.saved(),
            **_results(setups, varied or {}, run, collection),
            "baselines": baselines,
            "provenance": provenance,
        }
        storage.write_text(storage.join(output, run_directory.HEADS), json.dumps(document, indent=2) + "\n")
        unfinished.remove()
    return document


def _results(setups, varied, run: "_Run", collection: Collection) -> dict[str, Any]:
    tested = {
        "run": run.output,
        "test_labels": collection.features.labels[collection.features.rows("test")],
        "test_groups": collection.features.groups[collection.features.rows("test")],
    }
    rows = head_results.rows(
        setups, varied, run.results, **tested, other=collection.other, other_groups=collection.other_groups
    )
    if not any(row["seeds"] for row in rows):
        raise DatasetError(f"every head diverged; the first: {rows[0]['failed'][0]}")
    return {"results": rows, "comparisons": head_results.comparisons(rows, **tested)}


def _tasks(setups, num_seeds: int, questions: HeadQuestions, collection: Collection) -> list[HeadTask]:
    """All heads to train.

    Raises:
      DatasetError: there is no training for some of them: no folds, no validation clips, a class without any clip.
    """
    divisions = [DivisionName()]
    if questions.random_split:
        divisions.append(DivisionName(RANDOM_SPLIT))
    if questions.cross_validate:
        num_folds = head_divisions.num_folds(collection.features)
        if not num_folds:
            raise DatasetError(f"{collection.path} has no folds: prepare the clips with --folds=5, then cache again")
        divisions += [DivisionName(FOLD, fold=fold) for fold in range(num_folds)]
        if num_folds < 3 and any(settings.early_stopping_patience for settings in setups.values()):
            raise DatasetError(
                f"{collection.path} has {num_folds} folds: with early stopping one is tested on and one validates, so "
                "that --cross_validate needs 3 or more"
            )
    tasks = [
        HeadTask(name, settings, seed, division)
        for division in divisions
        for name, settings in setups.items()
        for seed in range(num_seeds)
    ] + [
        HeadTask(name, settings, seed, DivisionName(FRACTION, fraction=fraction, seed=seed))
        for fraction in questions.learning_curve
        for seed in range(num_seeds)
        for name, settings in setups.items()
    ]
    for division, validates in dict.fromkeys((task.division, task.validates) for task in tasks):
        collection.division(division, validates=validates)
    return tasks


class _Run:
    """The heads of a run directory: which are done, and training the rest."""

    def __init__(self, output: str, collection: Collection, *, save_heads: str):
        self.output = output
        self.results: list[tuple[HeadTask, dict]] = []
        self._collection = collection
        self._save_heads = save_heads
        self._best: tuple[tuple, str] | None = None  # rank and folder of the saved head, for "best"

    def train(self, tasks: Sequence[HeadTask], *, num_threads: int, show_progress: bool) -> None:
        todo = []
        for task in tasks:
            path = storage.join(self._folder(task), run_directory.RESULT)
            if storage.exists(path):
                self._take(task, json.loads(storage.read_text(path)))
            else:
                todo.append(task)
        total = sum(task.settings.epochs for task in tasks)
        left = sum(task.settings.epochs for task in todo)
        with tqdm(total=total, initial=total - left, desc="heads", unit=" epochs", disable=not show_progress) as bar:
            if show_progress and len(todo) < len(tasks):
                tqdm.write(f"continuing: {len(tasks) - len(todo)} of {len(tasks)} heads are trained", file=sys.stderr)
            ranking = LiveRanking(bar, tasks, shown=show_progress)
            for result in self.results:
                ranking.add(*result)
            for task, inputs, head in train_all(todo, self._inputs, num_threads=num_threads, on_epoch=bar.update):
                self._write(task, inputs, head)
                bar.update(task.settings.epochs - _epochs_of(head))  # it may have stopped early
                ranking.add(*self.results[-1])

    def saved(self) -> list[str]:
        """Folders of the saved heads, below the run directory; removes those that an interruption left over."""
        own = [self._folder(task) for task, result in self.results
               if not task.division.folder and "failed" not in result]  # fmt: skip
        kept = {"all": own, "none": [], "best": [self._best[1]] if self._best else []}[self._save_heads]
        for folder in sorted(set(own) - set(kept)):
            head_files.unsave(folder)
        return sorted(folder.removeprefix(self.output).lstrip("/") for folder in kept)

    def _folder(self, task: HeadTask) -> str:
        return run_directory.seed_folder(self.output, task.setup, task.seed, task.division.folder)

    def _inputs(self, task: HeadTask) -> HeadInputs:
        return self._collection.inputs(task.division, task.settings, validates=task.validates)

    def _write(self, task: HeadTask, inputs: HeadInputs, head) -> None:
        collection, folder = self._collection, self._folder(task)
        result = head_files.result_of(task, inputs, head, stale=collection.stale)
        before = self._best
        self._take(task, result)
        is_best = self._best != before
        if "failed" not in result and not task.division.folder:
            if self._save_heads == "all" or (self._save_heads == "best" and is_best):
                names, ids = collection.spec.class_names, collection.test_ids
                head_files.save(folder, inputs, head, class_names=names, test_ids=ids)
        head_files.write(folder, task, head, result, recorded=collection.recorded)
        if self._save_heads == "best" and is_best and before:
            head_files.unsave(before[1])

    def _take(self, task: HeadTask, result: dict) -> None:
        self.results.append((task, result))
        if not task.division.folder and "validation_accuracy" in result:
            # The folder decides between equals, since heads end in no fixed order.
            rank = (result["validation_accuracy"], -result["validation_loss"], self._folder(task))
            if self._best is None or rank > self._best[0]:
                self._best = rank, self._folder(task)


def _epochs_of(head) -> int:
    return len(head.history) if isinstance(head, TrainedHead) else head.num_epochs
