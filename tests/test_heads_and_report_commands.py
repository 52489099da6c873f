"""`melcache heads` and `melcache report`, after prepare and cache: the whole way."""

import html.parser
import json
import re
import shutil

import keras
import numpy as np
import pytest

from tfdata import clips, layout


def test_a_run_holds_what_it_was_made_with_and_what_came_out(run_dir, features_dir):
    spec = layout.read_spec(str(features_dir))
    heads = json.loads((run_dir / "heads.json").read_text())
    assert heads["features"] == spec.fingerprint and heads["weights"] == spec.settings["weights"]
    test = clips.load_split(str(features_dir), spec, "test")
    for row in heads["results"]:
        accuracies = []
        for seed in (0, 1):
            folder = run_dir / row["name"] / f"seed{seed}"
            # What the run says of itself is what its saved head does.
            head = keras.models.load_model(folder / "head.keras", safe_mode=True)
            answers = head.predict(test.array.astype(np.float32), verbose=0)
            result = json.loads((folder / "result.json").read_text())
            assert result["test_accuracy"] == np.mean(answers.argmax(axis=1) == test.labels)
            assert (
                np.sum(result["confusion"])
                == len(test.labels)
                == np.trace(result["confusion"]) + sum(answers.argmax(axis=1) != test.labels)
            )
            predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
            assert [prediction["id"] for prediction in predictions] == [clip.id for clip in test.clips]
            np.testing.assert_allclose([p["probabilities"] for p in predictions], answers, atol=1e-5)
            metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            assert [m["epoch"] for m in metrics] == [1, 2, 3]
            assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= set(metrics[0])
            settings = json.loads((folder / "settings.json").read_text())
            assert (settings["learning_rate"], settings["decay_rate"], settings["momentum"]) == (0.045, 0.9, 0.9)
            accuracies.append(result["test_accuracy"])
        assert row["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert [row["name"] for row in heads["baselines"]] == [
        "logistic regression, raw log-mel", "logistic regression, features"]  # fmt: skip
    assert not (run_dir / "unfinished").exists()


def test_continues_an_interrupted_run(run_dir, features_dir, clips_dir, melcache, melcache_json, tmp_path):
    heads = json.loads((run_dir / "heads.json").read_text())
    cut = tmp_path / "run"
    shutil.copytree(run_dir, cut)
    (cut / "heads.json").unlink()
    shutil.rmtree(cut / "setup4" / "seed1")
    (cut / "unfinished").mkdir()
    identity = ("features", "setups", "num_seeds", "standardise")
    (cut / "unfinished" / "job.json").write_text(json.dumps({name: heads[name] for name in identity}))
    kept = (cut / "setup1" / "seed0" / "result.json").stat().st_mtime_ns
    command = [
        "heads",
        f"--features={features_dir}",
        f"--data={clips_dir}",
        f"--output={cut}",
        "--setups=setup1,setup4",
    ]
    refused = melcache(*command, "--seeds=2", "--epochs=4")
    assert refused.returncode == 1 and "setups.setup1.epochs=3, this one has setups.setup1.epochs=4" in refused.stderr
    melcache_json(*command, "--seeds=2", "--epochs=3")
    assert (cut / "setup1" / "seed0" / "result.json").stat().st_mtime_ns == kept
    again = json.loads((cut / "heads.json").read_text())
    assert again["results"] == heads["results"]


@pytest.mark.parametrize(
    "arguments, status, expected",
    [
        (["--output={out}"], 2, "--features must be given"),
        (["--features={clips}", "--output={out}"], 1, "holds log_mel, expected features"),
        (["--features={features}", "--output={out}", "--setups=setup5"], 2, "unknown setup 'setup5'"),
        (["--features={features}", "--output={out}", "--setups="], 2, "--setups is empty"),
        (["--features={features}", "--output={out}", "--seeds=0"], 2, "seeds"),
        (["--features={features}", "--output={run}"], 1, "is already complete"),
        (["--features={features}", "--data={other}", "--output={out}"], 1, "was made from clips"),
        (["--features={incomplete}", "--output={out}"], 1, "not a complete dataset"),
    ],
)
def test_bad_command_lines_fail_in_one_line(
    arguments, status, expected, orchestra, clips_dir, features_dir, run_dir, other_clips, melcache, tmp_path
):
    shutil.copytree(features_dir, tmp_path / "incomplete")
    (tmp_path / "incomplete" / "COMPLETED").unlink()
    places = {"clips": clips_dir, "features": features_dir, "run": run_dir, "other": other_clips,
              "out": tmp_path / "out", "incomplete": tmp_path / "incomplete"}  # fmt: skip
    done = melcache("heads", "--quiet", *(argument.format(**places) for argument in arguments))
    assert done.returncode == status and expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "heads.json").exists()


@pytest.fixture(scope="module")
def other_clips(orchestra, melcache_json, tmp_path_factory):
    output = tmp_path_factory.mktemp("other") / "clips"
    melcache_json("prepare", f"--input={orchestra}/*/*_*_mf.*", f"--output={output}")
    return output


class Page(html.parser.HTMLParser):
    """Collects a page's text and what it refers to, and checks that its elements close."""

    VOID = {"meta", "link", "br", "img", "input", "use", "path", "rect", "image"}

    def __init__(self):
        super().__init__()
        self.text, self.references, self.open, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_file_that_holds_everything(run_dir, clips_dir, features_dir, melcache_json, tmp_path):
    told = melcache_json("report", f"--run={run_dir}", f"--output={tmp_path}/report.html")
    text = (tmp_path / "report.html").read_text()
    assert told["output"] == f"{tmp_path}/report.html"
    page = Page()
    page.feed(text)
    assert not page.open and len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert not re.search(r"<script|<link|@import|url\((?!['\"]?#)", text)
    words = " ".join(page.text)
    fingerprints = [layout.read_spec(str(directory)).fingerprint for directory in (clips_dir, features_dir)]
    results = ["Random weights", "setup4", "0.77", "logistic regression, raw log-mel", "Confusion matrix"]
    data = ["oboe/empty.mp3", "seconds", "Hz"]
    commands = ["melcache prepare", "melcache cache", "melcache heads", "melcache report"]
    for expected in results + data + commands + fingerprints:
        assert expected in words, expected
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_the_report_needs_no_tensorflow():
    import pathlib
    import subprocess
    import sys

    code = (
        "import launch.report_page, sys; print([m for m in ('tensorflow', 'keras', 'apache_beam') if m in sys.modules])"
    )
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_report_without_heads_or_of_other_datasets_is_refused(run_dir, other_clips, melcache, tmp_path):
    done = melcache("report", f"--run={tmp_path}")
    assert done.returncode == 1 and f"no finished heads in {tmp_path}" in done.stderr
    done = melcache("report", f"--run={run_dir}", f"--data={other_clips}", f"--output={tmp_path}/r.html")
    assert done.returncode == 1 and f"{other_clips} is" in done.stderr and not (tmp_path / "r.html").exists()


def test_hostile_names_are_shown_as_text(orchestra, melcache_json, tmp_path):
    """A class called like a tag must not become one."""
    from launch import report_pictures

    svg = report_pictures.log_mel_pictures(
        [(title, np.zeros((128, 12), np.float32)) for title in ("<script>alert(1)</script> & \"", "$x^$")],
        {"sample_rate_hz": 12_000, "n_fft": 2048, "hop_length": 1024, "fmin_hz": 0.0, "fmax_hz": 6000.0},
    )  # fmt: skip
    assert "<script" not in svg
    Page().feed(svg)
