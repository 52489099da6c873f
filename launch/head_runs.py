"""Trains heads on a feature dataset and writes a run directory: the library call behind `melcache heads`."""

import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from launch import run_directory
from model.baselines import logistic_regression
from model.heads import Examples, HeadSettings, HeadTrainer, test_metrics
from tfdata import clips, layout, storage
from tfdata.spec import FEATURES, LOG_MEL, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

_MAX_BASELINE_CLIPS = 5_000  # what a general solver takes in minutes
RAW_BASELINE, FEATURE_BASELINE = "logistic regression, raw log-mel", "logistic regression, features"


def train_heads(
    *,
    features: str,
    output: str,
    setups: Mapping[str, HeadSettings],
    num_seeds: int,
    standardise: bool,
    data: str | None,
    provenance: Mapping[str, Any],
    show_progress: bool,
) -> dict[str, Any]:
    """Train every setup with every seed, test each, and write all of it to `output`.

    Args:
      features: feature dataset directory.
      output: run directory to make; the same call continues an interrupted one.
      setups: name to settings.
      num_seeds: seeds 0 to num_seeds - 1.
      standardise: whether features are standardised with the training split's statistics.
      data: the clip dataset the features were made from, for the baseline on raw log-mels; None takes the place that
        the features record, and goes without the baseline where they are not there any more.
      provenance: stored for people to read.
    Returns:
      the content of heads.json.
    Raises:
      DatasetError: the features are incomplete, damaged, lack a split, or were made from other clips than `data`;
        `output` is in use.
    """
    spec = layout.read_spec(features, FEATURES)
    data, clips_spec = _parent(spec, features, data)
    for split in ("train", "test"):
        if split not in spec.splits:
            raise DatasetError(f"{features} has no {split} split: prepare the clips with one, then cache again")
    identity = {
        "features": spec.fingerprint,
        "setups": {name: dataclasses.asdict(settings) for name, settings in setups.items()},
        "num_seeds": num_seeds,
        "standardise": standardise,
    }
    unfinished = Unfinished(output)
    with unfinished.held(done_marker=run_directory.HEADS):
        unfinished.begin(identity)
        splits = {name: clips.load_split(features, spec, name) for name in spec.splits}
        examples = {name: Examples(split.array, split.labels) for name, split in splits.items()}
        num_classes = len(spec.class_names)
        trainer = HeadTrainer(
            examples["train"], examples.get("validation"), num_classes=num_classes, standardise=standardise
        )
        results = []
        total = num_seeds * sum(settings.epochs for settings in setups.values())
        with tqdm(total=total, desc="heads", unit=" epochs", disable=not show_progress) as bar:
            for name, settings in setups.items():
                runs = []
                for seed in range(num_seeds):
                    folder = run_directory.seed_folder(output, name, seed)
                    result_path = storage.join(folder, run_directory.RESULT)
                    if storage.exists(result_path):
                        bar.update(settings.epochs)
                    else:
                        _run(trainer, settings, seed, splits["test"], spec, folder, bar, standardise=standardise)
                    runs.append(json.loads(storage.read_text(result_path)))
                    bar.set_postfix_str(f"{name} seed {seed}: test {runs[-1]['test_accuracy']:.3f}")
                results.append(_summary(name, settings, runs))

        baselines = [_baseline(FEATURE_BASELINE, examples, num_classes)]
        if data:
            raw = {name: clips.load_split(data, clips_spec, name) for name in ("train", "test")}
            raw_examples = {name: Examples(split.array, split.labels) for name, split in raw.items()}
            baselines.insert(0, _baseline(RAW_BASELINE, raw_examples, num_classes))
        document = {
            **identity,
            "features_path": storage.absolute(features),
            "weights": spec.settings["weights"],
            "class_names": spec.class_names,
            "num_clips": {name: split.num_clips for name, split in spec.splits.items()},
            "results": results,
            "baselines": baselines,
            "provenance": provenance,
        }
        storage.write_text(storage.join(output, run_directory.HEADS), json.dumps(document, indent=2) + "\n")
        unfinished.remove()
    return document


def _parent(spec: DatasetSpec, features: str, data: str | None) -> tuple[str | None, DatasetSpec | None]:
    """Place and spec of the clips the features were made from; (None, None) where none are named and they are gone."""
    recorded = spec.parent["path"]
    if data is None and not layout.is_complete(recorded):
        return None, None
    clips_spec = layout.read_spec(data or recorded, LOG_MEL)
    if clips_spec.fingerprint == spec.parent["fingerprint"]:
        return data or recorded, clips_spec
    if data is None:  # other clips were made at that place since
        return None, None
    raise DatasetError(
        f"{features} was made from clips {spec.parent['fingerprint'][:12]} ({recorded}), but {data} is "
        f"{clips_spec.fingerprint[:12]}: give --data={recorded}, or cache {data}"
    )


def _run(trainer, settings, seed, test, spec, folder, bar, *, standardise):
    """Train and test one head, and write its folder."""
    head = trainer.train(settings, seed=seed, on_epoch=lambda metrics: bar.update())
    probabilities = head.probabilities(test.array)
    tested = test_metrics(probabilities, test.labels)
    last = head.history[-1]
    result = {
        "seed": seed,
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
        "confusion": tested["confusion"],
        "num_test_clips": len(test.labels),
        **{name: last[name] for name in last if name not in ("epoch", "learning_rate")},
    }
    storage.write_bytes(storage.join(folder, "head.keras"), _saved(head.model))
    recorded = {
        **dataclasses.asdict(settings),
        "seed": seed,
        "standardise": standardise,
        "features": spec.fingerprint,
        "class_names": spec.class_names,
    }
    storage.write_text(storage.join(folder, "settings.json"), json.dumps(recorded, indent=2) + "\n")
    storage.write_text(storage.join(folder, run_directory.METRICS), _lines(head.history))
    storage.write_text(
        storage.join(folder, "predictions.jsonl"),
        _lines(
            {
                "id": clip.id,
                "label": spec.class_names[clip.label],
                "probabilities": [round(float(p), 6) for p in answer],
            }
            for clip, answer in zip(test.clips, probabilities)
        ),
    )
    storage.write_text(storage.join(folder, run_directory.RESULT), json.dumps(result, indent=2) + "\n")


def _saved(model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # Keras saves to local paths only
        path = os.path.join(folder, "head.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _summary(name: str, settings: HeadSettings, runs: Sequence[dict]) -> dict[str, Any]:
    """A table row: means over seeds, and the deviation between seeds where there are several."""

    def mean(key):
        return statistics.fmean(run[key] for run in runs) if key in runs[0] else None

    accuracies = [run["test_accuracy"] for run in runs]
    return {
        "name": name,
        "settings": dataclasses.asdict(settings),
        "seeds": [run["seed"] for run in runs],
        "test_accuracy": mean("test_accuracy"),
        "test_accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "test_loss": mean("test_loss"),
        "validation_accuracy": mean("validation_accuracy"),
        "train_accuracy": mean("train_accuracy"),
    }


def _baseline(name: str, examples: Mapping[str, Examples], num_classes: int) -> dict[str, Any]:
    # Stored clips are shuffled by hash, so that the first are a fair sample of a large collection.
    whole, n = examples["train"], _MAX_BASELINE_CLIPS
    train = Examples(whole.features[:n], whole.labels[:n])
    probabilities = logistic_regression(train, examples["test"], num_classes=num_classes)
    tested = test_metrics(probabilities, examples["test"].labels)
    return {
        "name": name,
        "num_train_clips": len(train.labels),
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
    }
