"""A clip dataset as a table of text: clips by class and split, what was lost, how long and how loud they are."""

from collections.abc import Mapping
from typing import Any

from tfdata.spec import DatasetSpec


def by_class(spec: DatasetSpec) -> list[dict[str, Any]]:
    """For each class, and for "all": name, clips by split, rejected, silent_windows, and over all splits num_clipped,
    num_padded and the mean of duration_s, peak_dbfs and rms_dbfs (None where all is silent)."""
    splits = spec.statistics["splits"]
    rows = []
    for label, name in enumerate([*spec.class_names, "all"]):
        if name == "all" and label == len(spec.class_names):
            parts = [split["all"] for split in splits.values()]
            counts = {split: info.num_clips for split, info in spec.splits.items()}
            lost = {key: sum(spec.statistics[key].values()) for key in ("rejected", "silent_windows")}
        else:
            parts = [split["classes"][name] for split in splits.values() if name in split["classes"]]
            counts = {split: info.class_counts[label] for split, info in spec.splits.items()}
            lost = {key: spec.statistics[key].get(name, 0) for key in ("rejected", "silent_windows")}
        rows.append(
            {
                "name": name,
                "clips": counts,
                **lost,
                **{key: sum(part[key] for part in parts) for key in ("num_clipped", "num_padded")},
                **{key: _mean(parts, key) for key in ("duration_s", "peak_dbfs", "rms_dbfs")},
            }
        )
    return rows


def _mean(parts: list[Mapping[str, Any]], key: str) -> float | None:
    known = [(part[key]["mean"], part["num_clips"]) for part in parts if part[key]]
    return sum(mean * count for mean, count in known) / sum(count for _, count in known) if known else None


def lines(spec: DatasetSpec) -> list[str]:
    """The table; columns of what was lost only where something was."""
    rows = by_class(spec)
    total = rows[-1]
    columns = [(split, lambda row, split=split: f"{row['clips'][split]:,}") for split in spec.splits]
    optional = [("rejected", "rejected"), ("silent", "silent_windows"), ("clipped", "num_clipped")]
    columns += [(title, lambda row, key=key: f"{row[key]:,}") for title, key in optional if total[key]]
    columns += [
        ("seconds", lambda row: f"{row['duration_s']:.2f}"),
        ("RMS dBFS", lambda row: "" if row["rms_dbfs"] is None else f"{row['rms_dbfs']:.1f}"),
    ]
    width = max(len(row["name"]) for row in rows)
    table = [f"{'':{width}}" + "".join(f"{title:>12}" for title, _ in columns)]
    return table + [f"{row['name']:{width}}" + "".join(f"{cell(row):>12}" for _, cell in columns) for row in rows]
