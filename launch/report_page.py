"""One self-contained HTML page about a run: results, curves, data, settings. The library call behind `report`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from beam_preprocess.leak_audit import summary
from launch import clip_table, head_rows, report_pictures, run_directory
from tfdata import layout, schema, shards, storage
from tfdata.spec import FEATURES, LOG_MEL, DatasetError, DatasetSpec

_REJECTS_SHOWN = 200
_HEADS_SHOWN = 8


def write_report(*, run: str, output: str, features: str | None, data: str | None, command: str) -> None:
    """Write the page for the heads in `run`.

    Args:
      run: directory that `melcache heads` wrote.
      output: path of the HTML file.
      features, data: where the datasets of the run are now, if not where they were.
      command: the command line, for the page.
    Raises:
      DatasetError: no finished run, or datasets that are not those it was made from.
    """
    heads = run_directory.read_heads(run)
    features = features or heads["features_path"]
    features_spec = _open(features, FEATURES, heads["features"], run, flag="features")
    data = data or features_spec.parent["path"]
    # A stale run was made although the clips had changed: the page shows them as they are, and says so at its top.
    made_from = None if heads["stale"] else features_spec.parent["fingerprint"]
    clips_spec = _open(data, LOG_MEL, made_from, features, flag="data")

    rejects = layout.read_rejects(data)
    # A search has too many heads for a page: the best by validation are shown, the others counted.
    shown = [row for row in head_rows.by_validation(heads["results"]) if row["seeds"]][:_HEADS_SHOWN]
    best = shown[0]
    if not head_rows.is_ranked(heads["results"]):
        shown = [row for row in heads["results"] if row in shown]
    learning = {row["name"]: row["learning_curve"] for row in shown if row["learning_curve"]}
    page = jinja2.Environment(
        loader=jinja2.PackageLoader("launch", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report_page.html.jinja")
    html = page.render(
        clips=clips_spec,
        features=features_spec,
        heads=heads,
        classes=clip_table.by_class(clips_spec),
        leak_sentences=summary(clips_spec.leak_audit) if clips_spec.leak_audit else [],
        rejects=rejects[:_REJECTS_SHOWN],
        num_more_rejects=max(0, len(rejects) - _REJECTS_SHOWN),
        rows=[row for row in head_rows.rows({**heads, "results": shown})],
        num_more_heads=len(heads["results"]) - len(shown),
        failed=[(row["name"], sentence) for row in heads["results"] for sentence in row["failed"]][:_REJECTS_SHOWN],
        comparisons=heads["comparisons"],
        best=best,
        learning=Markup(report_pictures.learning_curves(learning)) if learning else None,
        ranking=Markup(report_pictures.ranking_picture(heads["results"]))
        if head_rows.is_ranked(heads["results"])
        else None,
        confusion=_confusion(run, best),
        log_mels=Markup(_log_mels(data, clips_spec)),
        curves=Markup(report_pictures.curves(_histories(run, shown))),
        settings={
            "clips": clips_spec.settings,
            "features": {**features_spec.settings, "precision": features_spec.array.dtype},
            "heads": {
                **{row["name"]: row["settings"] for row in shown},
                "num_seeds": heads["num_seeds"],
            },
        },
        fingerprints={
            "clips": clips_spec.fingerprint,
            "weights": heads["weights"]["digest"],
            "features": features_spec.fingerprint,
        },
        commands=[
            clips_spec.provenance.get("command"),
            features_spec.provenance.get("command"),
            heads["provenance"].get("command"),
            command,
        ],
    )
    # A rejected file's name need not be valid text.
    storage.write_bytes(output, html.encode("utf-8", "backslashreplace"))


def _open(directory: str, kind: str, fingerprint: str | None, maker: str, *, flag: str) -> DatasetSpec:
    """The spec of the dataset that `maker` was made from, at `directory`; with no fingerprint, whatever is there."""
    if not storage.is_directory(directory):
        raise DatasetError(f"{maker} was made from {directory}, which is not there now: name its place with --{flag}")
    spec = layout.read_spec(directory, kind)
    if fingerprint is not None and spec.fingerprint != fingerprint:
        raise DatasetError(
            f"{directory} is {spec.fingerprint[:12]}, but {maker} was made from {fingerprint[:12]}: "
            f"name the right one with --{flag}"
        )
    return spec


def _log_mels(data: str, spec: DatasetSpec) -> str:
    """One training clip of each class, the first as stored."""
    found: dict[int, tuple[str, np.ndarray]] = {}
    for shard in shards.of_split(data, spec, "train"):
        for record in shards.read(shard):
            clip, image = schema.decode_clip(record, spec)
            found.setdefault(clip.label, (spec.class_names[clip.label], image))
        if len(found) == len(spec.class_names):
            break
    return report_pictures.log_mel_pictures([found[label] for label in sorted(found)], spec.settings["log_mel"])


def _histories(run: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[dict]]]:
    return {row["name"]: [run_directory.read_metrics(run, row["name"], seed) for seed in row["seeds"]] for row in rows}


def _confusion(run: str, row: Mapping[str, Any]) -> list[list[int]]:
    """The confusion matrix of one setup, summed over its seeds."""
    matrices = [run_directory.read_result(run, row["name"], seed)["confusion"] for seed in row["seeds"]]
    return np.sum(matrices, axis=0).tolist()
