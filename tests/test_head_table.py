"""The table of heads, its rows, a search's ranking, comparisons, and the pictures of learning curves and searches."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from launch import head_rows, head_table, report_pictures
from launch.head_config import read_head_config
from model.thesis import REPORTED, SETUPS

ROOT = pathlib.Path(__file__).parent.parent
RAW, FEATURES = "logistic regression, raw log-mel", "logistic regression, features"


def result(name, settings, varied=None, **more):
    """A row of heads.json as it is read back: lists, no tuples."""
    row = {
        "name": name, "settings": dataclasses.asdict(settings), "varied": varied or {}, "seeds": [0, 1, 2],
        "test_accuracy": 0.8571, "test_accuracy_interval": [0.8331, 0.8811],
        "test_accuracy_test_set_interval": [0.8052, 0.9014], "test_loss": 0.9637, "validation_accuracy": 0.8024,
        "train_accuracy": 0.9953, "random_split": None, "folds": None, "other_collection": None, **more,
    }  # fmt: skip
    return json.loads(json.dumps(row))


def baseline(name, accuracy, loss, **more):
    return {"name": name, "test_accuracy": accuracy, "test_loss": loss, **more}


@pytest.fixture
def thesis_run():
    results = [
        result(name, settings, test_accuracy=0.85 + place / 1000)
        for place, (name, settings) in enumerate(SETUPS.items())
    ]
    return {"results": results, "baselines": [baseline(RAW, 0.958, 0.3512), baseline(FEATURES, 0.916, 0.2434)]}


def test_the_thesis_stands_beside_ours(thesis_run):
    lines = head_table.table(thesis_run)
    assert max(map(len, lines)) <= 116
    assert " ".join(lines[0].split()) == "hidden batch test 95 % over test"
    assert " ".join(lines[1].split()) == "units nesterov size accuracy test sets loss valid. thesis"
    assert lines[2].split() == ["setup1", "512", "no", "20", "0.850", "±", "0.024", "0.805-0.901", "0.964", "0.802",
                                "0.77", "(0.69)"]  # fmt: skip
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["setup2", "512", "yes", "20"], ["setup3", "1024-512", "no", "30"], ["setup4", "1024-512", "yes", "30"]
    ]  # fmt: skip
    for line, (name, reported) in zip(lines[2:6], REPORTED.items()):
        assert line.startswith(name) and line.endswith(f"{reported.test_accuracy:.2f} ({reported.test_loss:.2f})")
    assert lines[6].split() == [*RAW.split(), "0.958", "0.351"]
    # Figures stand below each other, the baselines' too.
    accuracies = [line.index(number) for line, number in zip(lines[2:7], ["0.850", "0.851", "0.852", "0.853", "0.958"])]
    losses = [line.index(number) for line, number in zip(lines[2:8], ["0.964"] * 4 + ["0.351", "0.243"])]
    assert len(set(accuracies)) == len(set(losses)) == 1
    notes = " ".join(lines[8:])
    assert "3 seeds: mean ± half of the 95 % interval" in notes and "other recordings, ImageNet weights" in notes
    assert not any(word in notes for word in ("folds", "collection", "ranked", "more"))


def test_columns_are_there_when_a_row_has_them_and_none_is_lost_for_width(thesis_run):
    for row in thesis_run["results"]:
        row["validation_accuracy"] = row["test_accuracy_interval"] = None
        row["seeds"] = [0]
    text = "\n".join(head_table.table(thesis_run))
    assert "valid" not in text and "±" not in text and "(1 seed, which tells no spread;" in text
    thesis_run["results"][1] |= {
        "random_split": {"test_accuracy": 0.9041, "test_accuracy_interval": [0.8951, 0.9131]},
        "folds": {"accuracy": 0.8446, "accuracy_interval": None, "num_folds": 5},
        "other_collection": {"accuracy": 0.6123, "accuracy_interval": [0.5504, 0.6706], "num_clips": 1301},
    }
    thesis_run["baselines"][0]["random_split"] = {"test_accuracy": 0.9962}
    for width in (80, 100, 116, 200):
        lines = head_table.table(thesis_run, width=width)
        assert max(map(len, lines)) <= width
        of_setup2 = " ".join(line for line in lines if line.startswith("setup2"))
        for told in ("0.904 ± 0.009", "0.845", "0.612 (0.550-0.671)", "0.805-0.901", "0.964", "0.74 (0.89)", "512"):
            assert told in of_setup2, (width, told)
        assert "0.996" in " ".join(line for line in lines if line.startswith(RAW))
        words = " ".join(lines)
        for told in ("random split", "other collection: 1,301 clips", "folds: 5 parts"):
            assert all(word in words for word in told.split()), told
    # On a wide screen, setup1, which has none of these, shows nothing below them.
    assert [line.split()[-2:] for line in head_table.table(thesis_run, width=200) if line.startswith("setup1")] == [
        ["0.77", "(0.69)"]
    ]


@pytest.fixture
def search():
    """The heads that docs/heads.toml asks for; the better in validation, the worse in the test."""
    config = read_head_config(str(ROOT / "docs" / "heads.toml"))
    order = np.random.default_rng(0).permutation(len(config.setups))
    results = [
        result(
            name, settings, config.varied[name], validation_accuracy=0.9 - place / 100, test_accuracy=0.5 + place / 100
        )
        for place, (name, settings) in zip(order.tolist(), config.setups.items())
    ]
    return {"results": results, "baselines": [baseline(RAW, 0.958, 0.351)]}


def test_a_search_is_ranked_by_validation_alone(search):
    best_first = [row["name"] for row in sorted(search["results"], key=lambda row: -row["validation_accuracy"])]
    lines = head_table.table(search, limit=7)
    assert max(map(len, lines)) <= 116
    assert [line.split()[:2] for line in lines[2:9]] == [[str(i), name] for i, name in enumerate(best_first[:7], 1)]
    assert not any(name in line for name in best_first[7:] for line in lines)
    text = " ".join(lines)
    assert "(the 7 best of 46 heads; 39 more are in heads.json)" in text
    assert "being the best of 46 flatters" in text and RAW in text
    for row in search["results"]:  # what a number stands for is told where the name does not tell it
        if row["name"] in best_first[:7] and row["name"].startswith("adam-search"):
            assert f"{row['name']}: learning_rate={row['varied']['learning_rate']}, batch_size=" in text
    # Rows for scripts: all of them, in the same order; test figures move nobody.
    rows = head_rows.rows(search)
    assert [row["name"] for row in rows] == [*best_first, RAW]
    assert [row["rank"] for row in rows] == [*range(1, 47), None] and rows[-1]["kind"] == "baseline"
    for row in search["results"]:
        row["test_accuracy"] = 1 - row["test_accuracy"]
    assert [row["name"] for row in head_rows.rows(search)] == [row["name"] for row in rows]


def test_settings_that_names_do_not_tell_are_columns_where_there_is_room(search):
    numbered = {"results": [row for row in search["results"] if row["name"].startswith("adam-search")]}
    lines = head_table.table(numbered, limit=3)
    assert lines[1].split()[:4] == ["dropout", "rate", "size", "weights"]
    best = head_rows.by_validation(numbered["results"])[0]
    expected = [best["varied"][key] for key in ("dropout", "learning_rate", "batch_size", "class_weights")]
    assert lines[2].split()[2:6] == [str(value) for value in expected]
    told_by_name = {"results": [row for row in search["results"] if row["name"].startswith("grid")]}
    assert head_table.table(told_by_name)[1].split()[:2] == ["accuracy", "test"]


def test_without_a_validation_split_nothing_is_ranked(search):
    for row in search["results"]:
        row["validation_accuracy"] = None
    lines = head_table.table(search, limit=2)
    assert [line.split()[0] for line in lines[2:4]] == [row["name"] for row in search["results"][:2]]
    text = " ".join(lines)
    assert "(the 2 first of 46 heads; 44 more" in text and "not ranked, for want of a validation split" in text
    assert head_table.ranking(search) == ["46 heads so far, no validation accuracy to rank them by"]
    with pytest.raises(ValueError, match="46 without one"):
        report_pictures.ranking_picture(search["results"])


def test_rows_are_flat_all_alike_and_json(thesis_run):
    thesis_run["results"][0] |= {
        "test_loss": float("nan"),  # a head that diverged
        "folds": {"accuracy": 0.8, "accuracy_interval": [0.7, 0.9], "num_folds": 5},
    }
    rows = head_rows.rows(thesis_run)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len({tuple(row) for row in rows}) == 1
    first, last = rows[0], rows[-1]
    assert (first["test_loss"], first["folds_interval"], first["num_folds"], first["num_seeds"]) == (
        None,
        [0.7, 0.9],
        5,
        3,
    )
    assert (first["thesis_test_accuracy"], first["thesis_test_loss"], first["rank"]) == (0.77, 0.69, None)
    assert (last["kind"], last["settings"], last["test_accuracy"], last["thesis_test_loss"]) == (
        "baseline",
        None,
        0.916,
        None,
    )
    assert "setup1" in head_table.table(thesis_run)[2]


def test_the_ranking_of_a_running_search_never_shows_the_test(search):
    assert head_table.ranking([]) == ["no head so far"]
    (one,) = (row for row in search["results"] if row["validation_accuracy"] == 0.9)
    assert head_table.ranking([one]) == [
        "1 head so far, the best by validation accuracy:",
        f"  1  0.900  {one['name']}",
    ]
    search["results"][3]["validation_accuracy"] = float("nan")
    lines = head_table.ranking(search, limit=3)
    assert len(lines) == 4 and lines == head_table.ranking(search["results"], limit=3)
    for row in search["results"]:
        row["test_accuracy"] = 0.123
    assert head_table.ranking(search, limit=3) == lines
    narrow = head_table.ranking(search, limit=3, width=30)[1:]
    assert all(len(line) <= 30 for line in narrow)


def test_comparisons_are_told_with_their_uncertainty():
    first = {"a": "setup4", "b": "setup1", "difference": 0.012, "interval": [-0.004, 0.028], "p_value": 0.14,
             "p_value_holm": 0.42}  # fmt: skip
    sure = {"a": "setup4", "b": RAW, "difference": -0.1204, "interval": None, "p_value": 0.0001, "p_value_holm": None}
    lines = head_table.comparison_lines({"comparisons": [first, sure]})
    assert lines[:2] == [
        "setup4 - setup1: +0.012 [-0.004, +0.028], p=0.14 (Holm 0.42)",
        f"setup4 - {RAW}: -0.120, p<0.001",
    ]
    assert "95 % intervals" in lines[2] and max(map(len, lines)) <= 116
    assert head_table.comparison_lines({}) == head_table.comparison_lines({"comparisons": []}) == []
    assert head_table.comparison_lines({"comparisons": [first] * 30}, limit=5)[5] == "and 25 comparisons more"


def svg_points(svg, element):
    """The corners of a line, or the places of its markers, of one element of a picture."""
    group = next(node for node in ElementTree.fromstring(svg).iter() if node.get("id") == element)
    markers = [(node.get("x"), node.get("y")) for node in group.iter() if node.tag.endswith("use")]
    path = next(node.get("d") for node in group.iter() if node.tag.endswith("path") and node.get("d"))
    return np.array(markers or re.findall(r"[ML] (\S+) (\S+)", path), float)


def test_learning_curves_are_drawn_to_scale():
    curves = {
        "setup1": [(0.1, 82, 0.6, [0.5, 0.7]), (0.5, 410, 0.7, [0.65, 0.75]), (1.0, 820, 0.85, [0.8, 0.9])],
        "<i>$x^$</i> & co": [(1.0, 820, 0.8, None), (0.25, 205, 0.55, None)],
    }
    keys = ("fraction", "num_train_clips", "test_accuracy", "interval")
    points = {name: [dict(zip(keys, point)) for point in given] for name, given in curves.items()}
    svg = report_pictures.learning_curves(points)
    ids = [
        node.get("id") for node in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter() if node.get("id")
    ]
    assert len(ids) == len(set(ids)) and "learning-band-setup1" in ids and "learning-band-<i>$x^$</i> & co" not in ids
    drawn = [svg_points(svg, f"learning-line-{name}") for name in points]
    fractions, accuracies = [0.1, 0.5, 1.0, 0.25, 1.0], [0.6, 0.7, 0.85, 0.55, 0.8]
    x, y = np.concatenate(drawn).T
    for told, place in ((np.log(fractions), x), (accuracies, -y)):
        slope, start = np.polyfit(told, place, 1)
        np.testing.assert_allclose(place, slope * np.array(told) + start, atol=0.01)
        assert slope > 0
    texts = " ".join(node.text or "" for node in ElementTree.fromstring(svg).iter())
    for told in ("820", "205", "0.25", "setup1", "<i>$x^$</i> & co", "test accuracy"):
        assert told in texts, told
    assert "<i>" not in svg and "currentColor" in svg and report_pictures.learning_curves(points) == svg
    with pytest.raises(ValueError, match="at least one setup"):
        report_pictures.learning_curves({})


def test_the_picture_of_a_search_is_sorted_by_validation(search):
    svg = report_pictures.ranking_picture(search["results"])
    _, y = svg_points(svg, "ranking-line-validation").T
    assert (np.diff(y) >= 0).all()  # downwards
    dots = svg_points(svg, "ranking-dots-test")
    assert len(dots) == 46 and (np.diff(dots[:, 1]) < 0).all()  # the fixture's test accuracy goes the other way
    many = [result(f"head{i}", SETUPS["setup1"], validation_accuracy=i / 3000) for i in range(3000)]
    assert len(report_pictures.ranking_picture(many)) < 400_000


def test_tables_and_configs_need_no_tensorflow():
    code = (
        "import launch.head_config, launch.head_table, model.comparison, sys; "
        "print([m for m in ('tensorflow', 'keras', 'apache_beam', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
