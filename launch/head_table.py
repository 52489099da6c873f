"""The results of heads as lines for a terminal: the table, a search's ranking, paired comparisons."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch import head_values
from launch.head_rows import SEARCH, Row, by_validation, number, rows
from model.head_settings import HAS_MEANING_WITH


def table(document: Mapping[str, Any], *, limit: int = 20, width: int = 116) -> list[str]:
    """The results as lines of text, ours beside what the thesis reports for the setup of that name.

    Of a search, the `limit` best by validation accuracy are shown and the others counted. Columns that no row has are
    left out; where the others do not fit into `width`, the table goes on below with the names repeated.

    Args:
      document: as for `rows`.
    """
    all_rows = rows(document)
    heads = [row for row in all_rows if row["kind"] == "head"]
    shown = [*heads[:limit], *all_rows[len(heads) :]]
    lines = _lines(shown, width)
    for note in [*_notes(heads, num_shown=min(limit, len(heads))), _legend(shown)]:
        lines += textwrap.wrap(note, width)
    return lines


def ranking(document_or_rows: Mapping[str, Any] | Sequence[Row], limit: int = 5, width: int = 100) -> list[str]:
    """The best heads so far in a few lines, for display while a search goes on; by validation, never by test.

    Args:
      document_or_rows: {"results": rows}, or rows with "name" and "validation_accuracy".
    """
    found = document_or_rows["results"] if isinstance(document_or_rows, Mapping) else document_or_rows
    if not found:
        return ["no head so far"]
    heads = f"{len(found):,} head{'s' if len(found) > 1 else ''} so far"
    best = [row for row in by_validation(found) if number(row.get("validation_accuracy")) is not None][:limit]
    if not best:
        return [f"{heads}, no validation accuracy to rank them by"]
    lines = [f"{place:>3}  {row['validation_accuracy']:.3f}  {row['name']}" for place, row in enumerate(best, 1)]
    return [f"{heads}, the best by validation accuracy:", *(_cut(line, width) for line in lines)]


def comparison_lines(document: Mapping[str, Any], limit: int = 20, width: int = 116) -> list[str]:
    """A line for each paired comparison: "setup4 - setup1: +0.012 [-0.004, +0.028], p=0.14 (Holm 0.42)"; [] for none.

    Args:
      document: "comparisons": [{"a", "b", "difference" (accuracy of a less that of b), "interval", "p_value",
        "p_value_holm"}]; the last and the interval may be None.
    """
    comparisons = document.get("comparisons") or []
    lines = []
    for one in comparisons[:limit]:
        interval, adjusted = one.get("interval"), number(one.get("p_value_holm"))
        lines.append(
            f"{one['a']} - {one['b']}: {one['difference']:+.3f}"
            + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")
            + f", p{_p_value(one['p_value'])}"
            + (f" (Holm {_p_value(adjusted).removeprefix('=')})" if adjusted is not None else "")
        )
    if len(comparisons) > limit:
        lines.append(f"and {len(comparisons) - limit:,} comparisons more")
    if lines:
        note = (
            "(test accuracy of the same clips; 95 % intervals over the test recordings drawn; p: exchanging the two at "
            "random, recording groups whole; Holm: for so many comparisons at once)"
        )
        lines += textwrap.wrap(note, width)
    return lines


@dataclasses.dataclass(frozen=True)
class _Column:
    """Two lines of heading, and a row's text ("" where it has none)."""

    heading: tuple[str, str]
    text: Callable[[Row], str]
    left: bool = False  # numbers begin below each other, whether or not something follows

    def cells(self, shown: Sequence[Row]) -> list[str]:
        """Heading and cells, all of one width."""
        texts = [self.text(row) for row in shown]
        longest = max(map(len, texts), default=0)
        if self.left:
            texts = [text.ljust(longest) for text in texts]
        width = max(longest, *map(len, self.heading))
        return [text.rjust(width) for text in (*self.heading, *texts)]


def _accuracy(key: str, interval: str | None = None) -> Callable[[Row], str]:
    """A column's text: 0.857, or with half the interval over seeds, 0.857 ± 0.024."""

    def text(row: Row) -> str:
        if row[key] is None:
            return ""
        known = row[interval] if interval else None
        return f"{row[key]:.3f}" + (f" ± {(known[1] - known[0]) / 2:.3f}" if known else "")

    return text


def _ends(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key][0]:.3f}-{row[key][1]:.3f}" if row[key] else ""


def _other_collection(row: Row) -> str:
    ends = _ends("other_collection_interval")(row)
    return _accuracy("other_collection_accuracy")(row) + (f" ({ends})" if ends else "")


def _thesis(row: Row) -> str:
    accuracy, loss = row["thesis_test_accuracy"], row["thesis_test_loss"]
    return "" if accuracy is None else f"{accuracy:.2f} ({loss:.2f})"


_RESULTS = [
    _Column(("test", "accuracy"), _accuracy("test_accuracy", "test_accuracy_interval"), left=True),
    _Column(("95 % over", "test sets"), _ends("test_accuracy_test_set_interval")),
    _Column(("test", "loss"), _accuracy("test_loss")),
    _Column(("", "valid."), _accuracy("validation_accuracy")),
    _Column(("", "thesis"), _thesis),
    _Column(("random", "split"), _accuracy("random_split_accuracy", "random_split_interval"), left=True),
    _Column(("", "folds"), _accuracy("folds_accuracy", "folds_interval"), left=True),
    _Column(("other", "collection"), _other_collection, left=True),
]


def _lines(shown: Sequence[Row], width: int) -> list[str]:
    """The table, in as many blocks below each other as its width asks for, and the settings that no column tells."""
    heads = [row for row in shown if row["kind"] == "head"]
    results = [column.cells(shown) for column in _RESULTS if any(column.text(row) for row in shown)]
    fields = _telling_fields(heads)
    settings = [_settings_column(field).cells(shown) for field in fields]
    names = ["", "", *map(_name, shown)]
    room = width - max(map(len, names))
    # Settings are columns where the test's own figures still fit beside them.
    if sum(2 + len(cells[0]) for cells in [*settings, *results[:3]]) <= room:
        return _blocks(names, settings + results, room)
    lines, notes = _blocks(names, results, room), []
    for row in heads:
        told = [
            f"{field}={_setting(row, field)}" for field in row["varied"] or fields if f"{field}=" not in row["name"]
        ]
        if told:
            notes += textwrap.wrap(f"{_name(row)}: {', '.join(told)}", width, subsequent_indent="     ")
    return [*lines, "", *notes] if notes else lines


def _blocks(names: Sequence[str], columns: Sequence[Sequence[str]], room: int) -> list[str]:
    """Columns beside the names; those for which there is no room go on below, beside the names that have any."""
    blocks: list[list[Sequence[str]]] = [[]]
    for cells in columns:
        if blocks[-1] and sum(2 + len(other[0]) for other in [*blocks[-1], cells]) > room:
            blocks.append([])
        blocks[-1].append(cells)
    lines, name_width = [], max(map(len, names))
    for number_of_block, block in enumerate(blocks):
        lines += [""] if number_of_block else []
        for place, name in enumerate(names):
            cells = "".join(f"  {column[place]}" for column in block)
            if cells.strip() or not number_of_block:
                lines.append(f"{name:{name_width}}{cells}".rstrip())
    return lines


def _telling_fields(heads: Sequence[Row]) -> list[str]:
    """The settings in which heads differ, except those that their names tell or that follow from another."""
    told_of = {key for row in heads for key in row["varied"]}
    return [
        field
        for field in head_values.FIELDS
        if len({_setting(row, field) for row in heads}) > 1
        and not all(f"{field}=" in row["name"] for row in heads)
        and not (field in HAS_MEANING_WITH and told_of and field not in told_of)
    ]


def _settings_column(field: str) -> _Column:
    *words, last = field.split("_")
    return _Column((" ".join(words), last), lambda row: _setting(row, field))


def _setting(row: Row, field: str) -> str:
    value = (row["settings"] or {}).get(field, "")
    return ("yes" if value else "no") if isinstance(value, bool) else head_values.spoken_value(value)


def _name(row: Row) -> str:
    return f"{row['rank']:>3}  {row['name']}" if row["rank"] else row["name"]


def _notes(heads: Sequence[Row], *, num_shown: int) -> list[str]:
    """What was left out, and what the result of the first among many is worth."""
    notes, num = [], f"{len(heads):,}"
    ranked = bool(heads) and heads[0]["rank"] is not None
    if num_shown < len(heads):
        order = "best of" if ranked else "first of"
        notes.append(f"(the {num_shown:,} {order} {num} heads; {len(heads) - num_shown:,} more are in heads.json)")
    if ranked:
        notes.append(
            f"(ranked by validation accuracy: being the best of {num} flatters the first one's, while the test "
            "recordings took no part in the choice. To choose by test accuracy instead would flatter that.)"
        )
    elif len(heads) > SEARCH:
        notes.append(
            f"(not ranked, for want of a validation split: the highest test accuracy of {num} heads is too good to be "
            "that head's own)"
        )
    return notes


def _legend(all_rows: Sequence[Row]) -> str:
    parts = []
    seeds = sorted({row["num_seeds"] for row in all_rows if row["num_seeds"]})
    if seeds:
        number = f"{seeds[0]:,}" if len(seeds) == 1 else f"{seeds[0]:,} to {seeds[-1]:,}"
        spread = ": mean ± half of the 95 % interval over seeds" if seeds[-1] > 1 else ", which tells no spread"
        parts.append(f"{number} seed{'s' if seeds[-1] > 1 else ''}{spread}")
    if any(row["test_accuracy_test_set_interval"] for row in all_rows):
        parts.append("95 % over test sets: had other recordings been drawn for the test")
    folds = sorted({row["num_folds"] for row in all_rows if row["num_folds"]})
    if folds:
        parts.append(f"folds: {' or '.join(map(str, folds))} parts, each tested by heads of the others")
    clips = sorted({row["other_collection_num_clips"] for row in all_rows if row["other_collection_num_clips"]})
    if clips:
        number = " or ".join(f"{number:,}" for number in clips)
        parts.append(f"other collection: {number} clips, 95 % over the recordings drawn")
    if any(row["thesis_test_accuracy"] is not None for row in all_rows):
        parts.append("thesis: other recordings, ImageNet weights; test accuracy and loss")
    return f"({'; '.join(parts)})" if parts else ""


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"={value:.2g}"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 3] + "..."
