"""`melcache heads`: every head as it would be alone, what else one may ask, and what goes wrong."""

import collections
import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from tests_support import write_manifest

from launch import head_divisions
from launch.head_divisions import FOLD, FRACTION, RANDOM_SPLIT, DivisionName
from launch.head_runs import HeadQuestions, train_heads
from model.thesis import SETUPS
from tfdata import in_memory, layout, records, schema, shards
from tfdata.unfinished import Unfinished

ROOT = pathlib.Path(__file__).parent.parent


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(run, *names):
    """Relative path to bytes of the files of these names, whole directory."""
    return {path.relative_to(run).as_posix(): path.read_bytes() for name in names for path in run.rglob(name)}


SMALL = ("settings.json", "metrics.jsonl", "answers.npy", "result.json")


def test_a_run_holds_what_it_was_made_with_and_what_came_out(run_dir, features_dir):
    spec = layout.read_spec(str(features_dir))
    heads = json.loads((run_dir / "heads.json").read_text())
    assert heads["features"] == spec.fingerprint and heads["weights"] == spec.settings["weights"]
    features = in_memory.load(str(features_dir), spec)
    rows = features.rows("test")
    for row in heads["results"]:
        accuracies = []
        for seed in (0, 1):
            folder = run_dir / row["name"] / f"seed{seed}"
            # What the run says of itself is what its saved head does.
            head = keras.models.load_model(folder / "head.keras", safe_mode=True)
            answers = head.predict(features.array[rows].astype(np.float32), verbose=0)
            right = answers.argmax(axis=1) == features.labels[rows]
            result = json.loads((folder / "result.json").read_text())
            assert result["test_accuracy"] == np.mean(right)
            assert np.sum(result["confusion"]) == len(rows) == np.trace(result["confusion"]) + sum(~right)
            np.testing.assert_array_equal(np.load(folder / "answers.npy"), answers.argmax(axis=1))
            predictions = lines(folder / "predictions.jsonl")
            assert [prediction["id"].encode() for prediction in predictions] == list(features.ids[rows])
            np.testing.assert_allclose([p["probabilities"] for p in predictions], answers, atol=1e-4)
            metrics = lines(folder / "metrics.jsonl")
            assert [m["epoch"] for m in metrics] == [1, 2, 3]
            assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= set(metrics[0])
            settings = json.loads((folder / "settings.json").read_text())
            assert (settings["learning_rate"], settings["decay_rate"], settings["momentum"]) == (0.045, 0.9, 0.9)
            assert settings["features"] == spec.fingerprint and settings["class_names"] == list(spec.class_names)
            accuracies.append(result["test_accuracy"])
        assert row["test_accuracy"] == pytest.approx(np.mean(accuracies))
        low, high = row["test_accuracy_interval"]
        assert low <= row["test_accuracy"] <= high
    assert [row["name"] for row in heads["baselines"]] == [
        "logistic regression, raw log-mel", "ridge, raw log-mel",
        "logistic regression, features", "ridge, features"]  # fmt: skip
    assert [(pair["a"], pair["b"]) for pair in heads["comparisons"]] == [("setup1", "setup4")]
    assert not (run_dir / "unfinished").exists()


def test_each_head_is_what_it_would_be_alone(run_dir, features_dir, tmp_path):
    """Trained with others on several threads, or alone on one: the same bytes."""
    train_heads(features=str(features_dir), output=str(tmp_path / "alone"), setups={"setup4": _short("setup4")},
                num_seeds=1, num_threads=1, provenance={}, show_progress=False)  # fmt: skip
    alone = contents(tmp_path / "alone" / "setup4" / "seed0", *SMALL, "predictions.jsonl")
    assert alone == contents(run_dir / "setup4" / "seed0", *SMALL, "predictions.jsonl")
    for ours, theirs in zip(*(keras.models.load_model(folder / "setup4" / "seed0" / "head.keras").get_weights()
                              for folder in (run_dir, tmp_path / "alone"))):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


def _short(name):
    return dataclasses.replace(SETUPS[name], epochs=3)


def test_continues_an_interrupted_run(run_dir, features_dir, clips_dir, melcache, melcache_json, tmp_path):
    heads = json.loads((run_dir / "heads.json").read_text())
    cut = tmp_path / "run"
    shutil.copytree(run_dir, cut)
    (cut / "heads.json").unlink()
    shutil.rmtree(cut / "setup4" / "seed1")
    (cut / "unfinished").mkdir()
    identity = ("features", "features_records", "test_features", "setups", "num_seeds", "random_split",
                "cross_validate", "learning_curve", "save_heads", "stale")  # fmt: skip
    (cut / "unfinished" / "job.json").write_text(json.dumps({name: heads[name] for name in identity}))
    kept = (cut / "setup1" / "seed0" / "result.json").stat().st_mtime_ns
    command = ["heads", f"--features={features_dir}", f"--data={clips_dir}", f"--output={cut}",
               "--setups=setup1,setup4"]  # fmt: skip
    refused = melcache(*command, "--seeds=2", "--epochs=4")
    assert refused.returncode == 1 and "setups.setup1.epochs=3, this one has setups.setup1.epochs=4" in refused.stderr
    melcache_json(*command, "--seeds=2", "--epochs=3")
    assert (cut / "setup1" / "seed0" / "result.json").stat().st_mtime_ns == kept
    again = json.loads((cut / "heads.json").read_text())
    assert again["results"] == heads["results"]


SEARCH = """
seeds = 2
epochs = 4
[grid]
base = "setup1"
hidden_units = [[8], [16]]
dropout = [0.0, 0.3]
batch_size = [2, 4, 8]
[setup.hot]
base = "setup1"
learning_rate = 1e6
decay_rate = 0.0
"""


@pytest.fixture(scope="module")
def search(features_dir, melcache, tmp_path_factory):
    """The config of a search of 13 setups, its finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "heads.toml").write_text(SEARCH)
    done = melcache("heads", f"--features={features_dir}", f"--output={folder}/run", f"--config={folder}/heads.toml")
    assert done.returncode == 0, done.stderr
    return folder / "heads.toml", folder / "run", done


def test_a_search_ranks_by_validation_and_keeps_the_best_head(search, features_dir):
    _, run, done = search
    heads = json.loads((run / "heads.json").read_text())
    assert len(heads["results"]) == 13 and "heads so far, the best by validation accuracy" in done.stderr
    hot = heads["results"][0]
    assert "| 104/104 [" in done.stderr  # heads that stop early count as what they would have been
    assert hot["name"] == "hot" and not hot["seeds"] and "lower the learning rate" in hot["failed"][0]
    accuracies = {
        path.parent: (result["validation_accuracy"], -result["validation_loss"])
        for path in run.rglob("result.json")
        if "failed" not in (result := json.loads(path.read_text()))
    }
    (saved,) = run.rglob("head.keras")
    assert accuracies[saved.parent] == max(accuracies.values())
    assert heads["saved"] == [saved.parent.relative_to(run).as_posix()]
    assert [path.parent for path in run.rglob("predictions.jsonl")] == [saved.parent]
    table = done.stdout
    ranked = sorted((row for row in heads["results"] if row["seeds"]), key=lambda row: -row["validation_accuracy"])
    assert table.index(ranked[0]["name"]) < table.index(ranked[-1]["name"])
    assert len(heads["comparisons"]) == 4 and {pair["a"] for pair in heads["comparisons"]} == {ranked[0]["name"]}


def test_a_search_killed_half_way_loses_nothing(search, features_dir, melcache, tmp_path):
    config, undisturbed, _ = search
    output = tmp_path / "run"
    command = ["heads", f"--features={features_dir}", f"--output={output}", f"--config={config}"]
    for wanted in (4, 15):
        process = subprocess.Popen([sys.executable, "-m", "launch", *command, "--quiet"], cwd=ROOT,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while len(list(output.rglob("result.json"))) < wanted and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (output / "heads.json").exists()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("result.json")}
    done = melcache(*command)
    assert done.returncode == 0 and "of 26 heads are trained" in done.stderr
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert contents(output, *SMALL, "predictions.jsonl") == contents(undisturbed, *SMALL, "predictions.jsonl")
    ours, theirs = (json.loads((run / "heads.json").read_text()) for run in (output, undisturbed))
    assert {**ours, "provenance": 0} == {**theirs, "provenance": 0}


def test_the_report_shows_a_search(search, clips_dir, melcache_json, tmp_path):
    _, run, _ = search
    melcache_json("report", f"--run={run}", f"--output={tmp_path}/r.html")
    text = (tmp_path / "r.html").read_text()
    assert "5 more heads of this search" in text and "All heads of the search" in text
    assert "2 heads gave no result" in text and "lower the learning rate" in text
    best = max((row for row in json.loads((run / "heads.json").read_text())["results"] if row["seeds"]),
               key=lambda row: row["validation_accuracy"])  # fmt: skip
    assert f"test accuracy of {best['name']}" in text


@pytest.fixture(scope="module")
def folded_features(features_dir, tmp_path_factory):
    """The features with folds 0, 1, 2 in turn within each class, as if the clips had been prepared with --folds=3."""
    directory = tmp_path_factory.mktemp("folded") / "features"
    shutil.copytree(features_dir, directory)
    spec = layout.read_spec(str(directory))
    unfinished, infos, seen = Unfinished(str(directory)), dict(spec.splits), collections.Counter()
    for split in ("train", "validation"):
        for shard in shards.of_split(str(directory), spec, split):
            changed = []
            for record in shards.read(shard):
                label = schema.decode_clip(record, spec)[0].label
                changed.append(schema.set_fold(record, seen[label] % 3))
                seen[label] += 1
            unfinished.write_shard(shard.name, records.frame(changed), num_clips=len(changed), content="")
        names = [shard.name for shard in shards.of_split(str(directory), spec, split)]
        infos[split] = unfinished.split_info(names, spec.splits[split].class_counts)
    unfinished.remove()
    (directory / "spec.json").write_text(dataclasses.replace(spec, splits=infos).to_json())
    return directory


@pytest.fixture(scope="module")
def questions(folded_features, tmp_path_factory):
    """A run that asks everything of one small setup."""
    output = tmp_path_factory.mktemp("questions") / "run"
    setups = {"small": dataclasses.replace(SETUPS["setup1"], hidden_units=(8,), epochs=3, batch_size=4)}
    asked = HeadQuestions(random_split=True, cross_validate=True, learning_curve=(0.4,))
    document = train_heads(features=str(folded_features), output=str(output), setups=setups, num_seeds=2,
                           questions=asked, provenance={}, show_progress=False, save_heads="none")  # fmt: skip
    return output, document


def test_what_else_is_asked_stands_beside(questions):
    run, document = questions
    (row,) = document["results"]

    def mean(folder):
        results = [json.loads((run / "small" / folder / f"seed{seed}" / "result.json").read_text()) for seed in (0, 1)]
        return np.mean([result["test_accuracy"] for result in results]), results

    assert row["random_split"]["test_accuracy"] == pytest.approx(mean("random_split")[0])
    folds = [mean(f"fold{fold}")[0] for fold in (0, 1, 2)]
    assert row["folds"]["accuracies"] == pytest.approx(folds) and row["folds"]["num_folds"] == 3
    assert row["folds"]["accuracy"] == pytest.approx(np.mean(folds))
    points = {point["fraction"]: point for point in row["learning_curve"]}
    assert set(points) == {0.4, 1.0} and points[1.0]["test_accuracy"] == row["test_accuracy"]
    of_fraction, results = mean("fraction0.4")
    assert points[0.4]["test_accuracy"] == pytest.approx(of_fraction)
    assert points[0.4]["num_train_clips"] < points[1.0]["num_train_clips"] == results[0]["num_train_clips"] * 2
    assert all("random_split" in row for row in document["baselines"])
    assert not list(run.rglob("head.keras"))


def test_divisions_hold_what_they_say(folded_features):
    spec = layout.read_spec(str(folded_features))
    features = in_memory.load(str(folded_features), spec)

    def divided(name, validates=False):
        return head_divisions.divide(name, features, spec, validates=validates)

    own = divided(DivisionName())
    random = divided(DivisionName(RANDOM_SPLIT))
    every = sorted(np.concatenate([own.train, own.validation, own.test]))
    assert sorted(np.concatenate([random.train, random.validation, random.test])) == every
    for part in ("train", "validation", "test"):  # as many of each class, but others
        ours, theirs = (np.sort(features.labels[getattr(division, part)]) for division in (own, random))
        np.testing.assert_array_equal(ours, theirs)
    assert set(random.test) != set(own.test)

    folds = [divided(DivisionName(FOLD, fold=fold)) for fold in (0, 1, 2)]
    assert sorted(np.concatenate([fold.test for fold in folds])) == sorted(np.concatenate([own.train, own.validation]))
    for number, fold in enumerate(folds):
        assert set(features.folds[fold.test]) == {number} and not len(fold.validation)
        assert set(features.folds[fold.train]) == {0, 1, 2} - {number}
        validated = divided(DivisionName(FOLD, fold=number), validates=True)
        assert set(features.folds[validated.validation]) == {(number + 1) % 3}
        assert set(features.folds[validated.train]) == {(number + 2) % 3}

    small, large = (divided(DivisionName(FRACTION, fraction=fraction, seed=3)) for fraction in (0.4, 0.8))
    assert set(small.train) <= set(large.train) <= set(own.train) and len(small.train) < len(large.train)
    assert set(features.labels[small.train]) == {0, 1, 2}
    np.testing.assert_array_equal(small.test, own.test)


def test_features_are_mapped_from_a_local_file(features_dir, run_dir, tmp_path):
    spec = layout.read_spec(str(features_dir))
    plain = in_memory.load(str(features_dir), spec)
    mapped = in_memory.load(str(features_dir), spec, local_cache_dir=str(tmp_path / "cache"))
    assert isinstance(mapped.array, np.memmap) and len(list((tmp_path / "cache").iterdir())) == 2
    for name in ("array", "labels", "folds", "ids", "groups"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(plain, name))
    (stored,) = (tmp_path / "cache").glob("*.array")
    then = stored.stat().st_mtime_ns
    train_heads(features=str(features_dir), output=str(tmp_path / "run"), setups={"setup1": _short("setup1")},
                num_seeds=2, provenance={}, show_progress=False, local_cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert stored.stat().st_mtime_ns == then
    assert contents(tmp_path / "run" / "setup1", *SMALL) == contents(run_dir / "setup1", *SMALL)


def test_too_little_memory_is_told_with_what_to_do(features_dir, monkeypatch):
    monkeypatch.setattr(in_memory.os, "sysconf", lambda name: 10 if name == "SC_PHYS_PAGES" else 4096)
    spec = layout.read_spec(str(features_dir))
    with pytest.raises(ValueError, match="this machine has 0.0 GiB: give --local_cache_dir"):
        in_memory.load("features", spec)


@pytest.fixture(scope="module")
def other_features(orchestra, features_dir, melcache_json, tmp_path_factory):
    """Another collection: two of the three classes and one that training does not have, embedded alike."""
    folder = tmp_path_factory.mktemp("other_collection")
    names = {"cello": "cello", "flute": "flute", "oboe": "cor anglais"}
    rows = [{"path": str(path), "label": names[path.parent.name]}
            for name in names for path in sorted((orchestra / name).glob("*_mf.*"))[:3]]  # fmt: skip
    write_manifest(folder / "notes.csv", rows)
    melcache_json("prepare", f"--manifest={folder}/notes.csv", f"--output={folder}/clips", "--noleak_audit")
    melcache_json("cache", f"--data={folder}/clips", f"--like={features_dir}", f"--output={folder}/features",
                  "--batch_size=8")  # fmt: skip
    return folder / "features"


def test_another_collection_is_a_test_set(other_features, features_dir, melcache, tmp_path):
    output = tmp_path / "run"
    done = melcache("heads", "--json", f"--features={features_dir}", f"--test_features={other_features}",
                    "--setups=setup1", "--epochs=3", f"--output={output}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out: cor anglais" in done.stderr and "only in training: oboe" in done.stderr
    assert "clips of --test_features are in training or validation too" in done.stderr
    (row,) = json.loads((output / "heads.json").read_text())["results"]
    spec, own = layout.read_spec(str(other_features)), layout.read_spec(str(features_dir))
    other = in_memory.load(str(other_features), spec)
    head = keras.models.load_model(output / "setup1" / "seed0" / "head.keras", safe_mode=True)
    answers = head.predict(other.array.astype(np.float32), verbose=0).argmax(axis=1)
    ours = in_memory.load(str(features_dir), own)
    known = set(ours.content_hashes[np.concatenate([ours.rows("train"), ours.rows("validation")])])
    matched = [
        own.class_names[answer] == spec.class_names[label]
        for answer, label, content in zip(answers, other.labels, other.content_hashes)
        if spec.class_names[label] != "cor anglais" and content not in known
    ]
    assert 0 < len(matched) < 6 and row["other_collection"]["num_clips"] == len(matched)
    assert row["other_collection"]["accuracy"] == pytest.approx(np.mean(matched))
    assert json.loads(done.stdout)["baselines"][-1]["other_collection"]["num_clips"] == len(matched)


def test_features_that_can_not_be_compared_are_refused(features_dir, melcache, tmp_path):
    shutil.copytree(features_dir, tmp_path / "other")
    spec = layout.read_spec(str(features_dir))
    weights = {**spec.settings["weights"], "digest": "f" * 64}
    other = dataclasses.replace(spec, settings={**spec.settings, "weights": weights})
    (tmp_path / "other" / "spec.json").write_text(other.to_json())
    done = melcache(
        "heads", f"--features={features_dir}", f"--test_features={tmp_path}/other", f"--output={tmp_path}/r"
    )
    assert done.returncode == 1 and "was made with weights.digest=" in done.stderr, done.stderr
    assert f"--like={features_dir}" in done.stderr and not (tmp_path / "r").exists()


def test_stale_features_are_refused_or_every_result_says_so(orchestra, clips_dir, features_dir, melcache, melcache_json,
                                                            tmp_path):  # fmt: skip
    melcache_json("prepare", f"--manifest={orchestra}/notes.csv", "--group=group", f"--output={tmp_path}/clips",
                  "--max_reject_fraction=0.3", "--n_mels=64")  # fmt: skip
    command = ["heads", f"--features={features_dir}", f"--data={tmp_path}/clips", f"--output={tmp_path}/run",
               "--setups=setup1", "--epochs=2"]  # fmt: skip
    refused = melcache(*command)
    assert refused.returncode == 1 and "log_mel.n_mels=128 then, 64 now" in refused.stderr, refused.stderr
    assert f"melcache cache --data={tmp_path}/clips --like={features_dir}" in refused.stderr
    assert not (tmp_path / "run").exists()
    told = melcache_json(*command, "--allow_stale")
    assert "log_mel.n_mels=128 then, 64 now" in told["stale"]
    for name in ("heads.json", "setup1/seed0/result.json", "setup1/seed0/settings.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["stale"] == told["stale"]
    assert melcache_json("report", f"--run={tmp_path}/run", f"--data={tmp_path}/clips", f"--output={tmp_path}/r.html")
    assert "<strong>Stale.</strong>" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    "arguments, status, expected",
    [
        (["--output={out}"], 2, "--features must be given"),
        (["--features={clips}", "--output={out}"], 1, "holds log_mel, expected features"),
        (["--features={features}", "--output={out}", "--setups=setup5"], 2, "unknown setup 'setup5'"),
        (["--features={features}", "--output={out}", "--setups="], 2, "--setups is empty"),
        (["--features={features}", "--output={out}", "--seeds=0"], 2, "seeds"),
        (["--features={features}", "--output={run}"], 1, "is already complete"),
        (["--features={incomplete}", "--output={out}"], 1, "not a complete dataset"),
        (["--features={damaged}", "--output={out}"], 1, "features-train.tfrecord-00000-of-0"),
        (["--features={mixed}", "--output={out}"], 1, "is whole, but not the shard that was written"),
        (["--features={features}", "--output={out}", "--config={config}"], 1, "did you mean"),
        (["--features={features}", "--output={out}", "--config=/nowhere.toml"], 1, "/nowhere.toml"),
        (["--features={features}", "--output={out}", "--config={config}", "--setups=setup1"], 2, "leave out --setups"),
        (["--features={features}", "--output={out}", "--learning_curve=0.5,2"], 2, "2 is no fraction"),
        (["--features={features}", "--output={out}", "--learning_curve=half"], 2, "expected fractions"),
        (["--features={features}", "--output={out}", "--test_features=/nowhere"], 1, "no dataset at /nowhere"),
        (["--features={features}", "--output={out}", "--config={hot}"], 1, "every head diverged"),
    ],
)
def test_bad_command_lines_fail_in_one_line(
    arguments, status, expected, clips_dir, features_dir, run_dir, melcache, tmp_path
):
    places = {"clips": clips_dir, "features": features_dir, "run": run_dir, "out": tmp_path / "out"}
    for name in ("incomplete", "damaged", "mixed"):
        places[name] = tmp_path / name
        if f"{{{name}}}" in arguments[0]:
            shutil.copytree(features_dir, places[name])
    train = sorted((tmp_path / "mixed").glob("features-train*"))
    if train:
        sizes = {path: len(list(path.read_bytes())) for path in train}
        first, second = next((a, b) for a in train for b in train if a != b and sizes[a] == sizes[b])
        shutil.copy(second, first)
    if (tmp_path / "damaged").exists():
        shard = sorted((tmp_path / "damaged").glob("features-train*"))[0]
        shard.write_bytes(shard.read_bytes()[:-100])
    if (tmp_path / "incomplete").exists():
        (tmp_path / "incomplete" / "COMPLETED").unlink()
    for name, text in {"config": "learning_rte = 0.1\n", "hot": "learning_rate = 1e6\ndecay_rate = 0.0\n"}.items():
        places[name] = tmp_path / f"{name}.toml"
        places[name].write_text(f'[setup.a]\nbase = "setup1"\n{text}')
    done = melcache("heads", "--quiet", *(argument.format(**places) for argument in arguments))
    assert done.returncode == status and expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "heads.json").exists()


def test_what_can_not_be_asked_is_refused_before_anything_is_begun(features_dir, folded_features, tmp_path):
    """So that the same output can be used with what can."""
    output = tmp_path / "run"

    def train(features, questions, **change):
        setups = {"small": dataclasses.replace(SETUPS["setup1"], hidden_units=(8,), epochs=2, **change)}
        return train_heads(features=str(features), output=str(output), setups=setups, num_seeds=1, questions=questions,
                           provenance={}, show_progress=False, save_heads="none")  # fmt: skip

    with pytest.raises(ValueError, match="has no folds: prepare the clips with --folds"):
        train(features_dir, HeadQuestions(cross_validate=True))
    with pytest.raises(ValueError, match="every clip of .* is a training or validation clip"):
        train(features_dir, HeadQuestions(test_features=str(_only_train(features_dir, tmp_path))))
    assert not output.exists()
    assert train(folded_features, HeadQuestions(cross_validate=True), early_stopping_patience=1)["results"][0]["folds"]


def _only_train(features_dir, tmp_path):
    """A feature dataset whose only split is another's train split."""
    shutil.copytree(features_dir, tmp_path / "train")
    spec = layout.read_spec(str(features_dir))
    only = dataclasses.replace(spec, splits={"train": spec.splits["train"]})
    (tmp_path / "train" / "spec.json").write_text(only.to_json())
    return tmp_path / "train"


def test_the_report_draws_heads_that_stopped_at_different_epochs(features_dir, clips_dir, melcache_json, tmp_path):
    (tmp_path / "heads.toml").write_text(
        'seeds = 4\n[setup.early]\nbase = "setup1"\nepochs = 30\nearly_stopping_patience = 1\nbatch_size = 2\n'
        "learning_rate = 0.3\n"
    )
    melcache_json("heads", f"--features={features_dir}", f"--config={tmp_path}/heads.toml", f"--output={tmp_path}/run")
    epochs = {json.loads(path.read_text())["num_epochs"] for path in (tmp_path / "run").rglob("result.json")}
    assert len(epochs) > 1
    melcache_json("report", f"--run={tmp_path}/run", f"--data={clips_dir}", f"--output={tmp_path}/r.html")
    assert "early" in (tmp_path / "r.html").read_text()


def test_damaged_clips_cost_only_the_baselines_on_them(features_dir, clips_dir, melcache, tmp_path):
    shutil.copytree(clips_dir, tmp_path / "clips")
    shard = sorted((tmp_path / "clips").glob("log_mel-train*"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    done = melcache("heads", f"--features={features_dir}", f"--data={tmp_path}/clips", f"--output={tmp_path}/run",
                    "--setups=setup1", "--epochs=2", "--save_heads=none", "--quiet")  # fmt: skip
    assert done.returncode == 0 and f"no linear, raw log-mel: {shard} is damaged" in done.stdout, done.stderr
    assert "logistic regression, features" in done.stdout


def test_features_whose_clips_are_gone_are_enough_and_it_says_so(features_dir, melcache, tmp_path):
    shutil.copytree(features_dir, tmp_path / "features")
    spec = layout.read_spec(str(features_dir))
    moved = dataclasses.replace(spec, parent={**spec.parent, "path": "/nowhere/clips"})
    (tmp_path / "features" / "spec.json").write_text(moved.to_json())
    done = melcache("heads", f"--features={tmp_path}/features", f"--output={tmp_path}/run", "--setups=setup1",
                    "--epochs=2", "--save_heads=none", "--quiet")  # fmt: skip
    assert done.returncode == 0 and "the clips that the features were made from are not there" in done.stdout
    assert "raw log-mel" not in done.stdout.split("the clips that")[0]
