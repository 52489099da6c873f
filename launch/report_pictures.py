"""The report's pictures as inline SVG that takes the page's text colour, so that they read in light and in dark."""

import io
import re
from collections.abc import Mapping, Sequence

import librosa
import librosa.display
import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.figure import Figure

from launch.head_rows import by_validation, number

_INK = "#010203"  # stands for the page's text colour until the SVG is written
_MOST_DOTS = 500  # more are drawn as pixels, so that the page stays small
_LINE_COLOURS = ("#2f8fd8", "#e08a00", "#1fa37a", "#cf6fb0", "#8f7ee0", "#b0a01f", "#d9534f", "#5fb7c9")
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def log_mel_pictures(examples: Sequence[tuple[str, np.ndarray]], settings: Mapping) -> str:
    """Log-mels (title, [n_mels, frames]) side by side, in Hz and seconds, with one colour scale.

    Args:
      settings: the clip dataset's "log_mel" settings.
    """
    columns = min(4, len(examples))
    rows = -(-len(examples) // columns)
    low = min(float(image.min()) for _, image in examples)
    high = max(float(image.max()) for _, image in examples)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * columns + 0.8, 2.5 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.flat[len(examples) :]:
            axis.set_visible(False)
        for axis, (title, image) in zip(axes.flat, examples):
            mesh = librosa.display.specshow(
                image.astype(np.float32), sr=settings["sample_rate_hz"], n_fft=settings["n_fft"],
                hop_length=settings["hop_length"], x_axis="time", y_axis="mel", fmin=settings["fmin_hz"],
                fmax=settings["fmax_hz"], ax=axis, cmap="magma", vmin=low, vmax=high, rasterized=True,
            )  # fmt: skip
            axis.set(xlabel="seconds", ylabel="Hz")
            axis.set_title(title, parse_math=False)
            axis.label_outer()
        bar = figure.colorbar(mesh, ax=axes, shrink=0.8)
        bar.set_label("ln(power)")
        return _svg(figure, "log_mel", f"log-mel pictures of {', '.join(title for title, _ in examples)}")


def curves(histories: Mapping[str, Sequence[Sequence[dict]]]) -> str:
    """Accuracy and loss by epoch, training and validation, a line for each setup: the mean over its seeds."""
    panels = [("validation_accuracy", "validation accuracy"), ("train_accuracy", "training accuracy"),
              ("validation_loss", "validation loss"), ("train_loss", "training loss")]  # fmt: skip
    known = {key for runs in histories.values() for history in runs for key in history[0]}
    panels = [(key, title) for key, title in panels if key in known]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 3.0 * (len(panels) // 2)), layout="constrained")
        axes = figure.subplots(len(panels) // 2, 2, squeeze=False)
        for axis, (key, title) in zip(axes.flat, panels):
            for colour, (name, runs) in zip(_LINE_COLOURS * len(histories), histories.items()):
                # Early stopping ends seeds at different epochs: where one has ended, the others go on without it.
                longest = max(len(history) for history in runs)
                values = np.full((len(runs), longest), np.nan)
                for row, history in zip(values, runs):
                    row[: len(history)] = [metrics[key] for metrics in history]
                epochs = np.arange(1, longest + 1)
                axis.plot(epochs, np.nanmean(values, axis=0), color=colour, label=name, linewidth=1.6)
                if len(runs) > 1:
                    axis.fill_between(
                        epochs,
                        np.nanmin(values, axis=0),
                        np.nanmax(values, axis=0),
                        color=colour,
                        alpha=0.15,
                        linewidth=0,
                    )
            axis.set(title=title, xlabel="epoch")
            if key.endswith("loss"):
                axis.set_yscale("log")
            axis.grid(alpha=0.25, color=_INK, linewidth=0.5)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(histories))
        return _svg(figure, "curves", f"accuracy and loss by epoch of {', '.join(histories)}")


def learning_curves(points: Mapping[str, Sequence[Mapping]]) -> str:
    """Test accuracy over the part of the training clips that was used, a line for each setup.

    Args:
      points: for each setup, dictionaries with "fraction" (above 0, up to 1), "num_train_clips", "test_accuracy", and
        "interval" [low, high] or None; the band runs between the intervals' ends.
    Raises:
      ValueError: there is no setup, or one without points.
    """
    if not points or not all(points.values()):
        raise ValueError(f"expected at least one setup, each with points, got {dict(points)!r}")
    ticks: dict[float, str] = {}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 4.0), layout="constrained")
        axis = figure.subplots()
        for colour, (name, given) in zip(_LINE_COLOURS * len(points), points.items()):
            ordered = sorted(given, key=lambda point: point["fraction"])
            for point in ordered:
                ticks.setdefault(point["fraction"], f"{point['fraction']:.3g}\n{point['num_train_clips']:,}")
            fractions = [point["fraction"] for point in ordered]
            accuracies = [point["test_accuracy"] for point in ordered]
            axis.plot(fractions, accuracies, color=colour, label=name, linewidth=1.6, marker="o", markersize=3.5,
                      gid=f"line-{name}")  # fmt: skip
            known = [point for point in ordered if point.get("interval")]
            if known:
                low, high = zip(*(point["interval"] for point in known))
                fractions = [point["fraction"] for point in known]
                axis.fill_between(fractions, low, high, color=colour, alpha=0.15, linewidth=0, gid=f"band-{name}")
        axis.set(xscale="log", xlabel="fraction of the training clips, and how many they are", ylabel="test accuracy")
        axis.set_xticks(list(ticks), list(ticks.values()))
        axis.minorticks_off()
        axis.grid(alpha=0.25, color=_INK, linewidth=0.5)
        _legend_below(figure, axis, len(points))
        return _svg(figure, "learning", f"test accuracy by number of training clips of {', '.join(points)}")


def ranking_picture(rows: Sequence[Mapping]) -> str:
    """The heads of a search from best to worst validation accuracy, and each one's test accuracy as a dot.

    Args:
      rows: dictionaries with "name", "validation_accuracy" and "test_accuracy"; those without the first are left out.
    Raises:
      ValueError: no row has a validation accuracy.
    """
    ordered = [row for row in by_validation(rows) if number(row.get("validation_accuracy")) is not None]
    if not ordered:
        raise ValueError(f"expected heads with a validation accuracy, got {len(rows)} without one")
    places = np.arange(1, len(ordered) + 1)
    validation = [row["validation_accuracy"] for row in ordered]
    test = [np.nan if number(row["test_accuracy"]) is None else row["test_accuracy"] for row in ordered]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        axis = figure.subplots()
        axis.plot(places, test, "o", color=_LINE_COLOURS[1], markersize=3, label="test", gid="dots-test",
                  rasterized=len(ordered) > _MOST_DOTS)  # fmt: skip
        axis.plot(places, validation, color=_LINE_COLOURS[0], linewidth=1.8, label="validation", gid="line-validation",
                  drawstyle="steps-mid")  # fmt: skip
        axis.set(xlabel="place by validation accuracy", ylabel="accuracy")
        axis.grid(alpha=0.25, color=_INK, linewidth=0.5)
        _legend_below(figure, axis, 2)
        return _svg(figure, "ranking", f"validation and test accuracy of {len(ordered)} heads, best validation first")


def _legend_below(figure: Figure, axis, num_lines: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(num_lines, 4))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name with dollar signs is no formula


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element that scales with the page; `name` keeps its ids apart from other pictures'."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, **_STYLE}):
        figure.savefig(file, format="svg", transparent=True, dpi=150, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Ids are unique within a figure; the page holds several.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
