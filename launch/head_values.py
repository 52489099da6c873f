"""Values of heads' settings: as heads.toml gives them (one, a list, a range), as drawn, and as names show them."""

import dataclasses
import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from model.head_settings import HAS_MEANING_WITH, HeadSettings

FIELDS = {field.name: field for field in dataclasses.fields(HeadSettings)}
RANGE_KEYS = ("low", "high", "log")
# Settings beside which any one value can be checked for itself.
_NEUTRAL = dict(hidden_units=(), learning_rate=1.0, batch_size=1, epochs=999_999_999)


def checked(where: str, key: str, value: Any) -> Any:
    """`value` as HeadSettings holds it under `key`, checked for itself.

    Args:
      where: file and table, for errors.
    Raises:
      ValueError: HeadSettings takes no such value, whatever the other settings are.
    """
    if key == "hidden_units" and not isinstance(value, list):
        raise ValueError(f"{where}: hidden_units must be a list of whole numbers such as [1024, 512], got {value!r}")
    beside = dict([HAS_MEANING_WITH[key]]) if key in HAS_MEANING_WITH else {}
    try:
        return getattr(HeadSettings(**{**_NEUTRAL, **beside, key: value}), key)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def whole_number(where: str, key: str, value: Any, *, lowest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{where}: {key} must be a whole number from {lowest} on, got {value!r}")
    return value


def choices(where: str, key: str, values: Any) -> list[Any]:
    """The values of a list, each checked.

    Raises:
      ValueError: no list, an empty one, a bad value, or a value twice.
    """
    if isinstance(values, dict):
        raise ValueError(f"{where}: {key} must be a list of values (only [random] draws from ranges), got {values!r}")
    if key == "hidden_units" and not (isinstance(values, list) and all(isinstance(value, list) for value in values)):
        raise ValueError(f"{where}: {key} must be a list of lists, such as [[512], [1024, 512]], got {values!r}")
    if not isinstance(values, list):
        raise ValueError(f"{where}: {key} must be a list of values, got {values!r}: put it in brackets")
    if not values:
        raise ValueError(f"{where}: {key} is an empty list: give it a value, or leave it out")
    found: dict[Any, None] = {}
    for value in values:
        one = checked(where, key, value)
        if one in found:
            raise ValueError(f"{where}: {key} has the value {value!r} twice: leave one of the two out")
        found[one] = None
    return list(found)


@dataclasses.dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; evenly, or evenly by factors (`log`)."""

    low: float
    high: float
    log: bool

    @property
    def num_values(self) -> float:
        return self.high - self.low + 1 if isinstance(self.low, int) else math.inf

    def at(self, part: float) -> float:
        """The value at `part` in [0, 1) of the range; whole between whole numbers, else of three digits."""
        whole = isinstance(self.low, int)
        low, high = self.low, self.high + whole  # each whole number has the same room, the last one too
        value = low * (high / low) ** part if self.log else low + part * (high - low)
        if whole:
            return min(max(math.floor(value), self.low), self.high)
        digits_of = min(value, high - low) if self.log else high - low
        return min(max(round(value, 2 - math.floor(math.log10(digits_of))), self.low), self.high)


def value_range(where: str, key: str, table: Mapping[str, Any]) -> Range:
    """The range that { low = ..., high = ..., log = ... } tells of.

    Raises:
      ValueError: the setting is no number, an end is missing or bad, or the ends are not in order.
    """
    for name in table:
        if name not in RANGE_KEYS:
            raise ValueError(f"{where}: unknown key {name!r} in the range of {key}{nearest(name, RANGE_KEYS)}")
    if FIELDS[key].type not in (int, float):
        raise ValueError(f"{where}: {key} is no number and has no range: give it a list of choices, got {table!r}")
    for end in ("low", "high"):
        if end not in table:
            raise ValueError(f"{where}: the range of {key} needs low and high, got {table!r}")
    log = table.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{where}: log in the range of {key} must be true or false, got {log!r}")
    low, high = (FIELDS[key].type(checked(where, key, table[end])) for end in ("low", "high"))
    if not low < high:
        raise ValueError(f"{where}: low must be below high in the range of {key}, got {low!r} and {high!r}")
    if log and low <= 0:
        raise ValueError(f"{where}: a range by factors (log = true) starts above 0, but {key} has low={low!r}")
    return Range(low, high, log)


def draw(where: str, spaces: Mapping[str, Sequence[Any] | Range], *, num: int, seed: int) -> list[dict[str, Any]]:
    """`num` different combinations of one value for each key; one that was there before is drawn again.

    Each key has a stream of its own, seeded with its name: a larger `num` begins with the same combinations, and the
    order of keys changes nothing.

    Raises:
      ValueError: there are fewer than `num` different combinations, or so many could not be found.
    """
    size = math.prod(space.num_values if isinstance(space, Range) else len(space) for space in spaces.values())
    if size < num:
        raise ValueError(
            f"{where}: num={num} different heads are asked for, but there are only {size}: give more values"
        )
    streams = {
        key: np.random.Generator(np.random.PCG64([seed, *hashlib.sha256(key.encode()).digest()])) for key in spaces
    }
    found: dict[tuple, dict[str, Any]] = {}
    for _ in range(200 * num + 1000):
        drawn = {key: _at(space, streams[key].random()) for key, space in spaces.items()}
        found.setdefault(tuple(drawn.values()), drawn)
        if len(found) == num:
            return list(found.values())
    raise ValueError(
        f"{where}: num={num} different heads are asked for, but no more than {len(found)} were found (ranges give "
        "three digits): widen the ranges, or lower num"
    )


def spoken(values: Mapping[str, Any]) -> str:
    """Settings as names and tables show them: hidden_units=1024-512,dropout=0.3."""
    return ",".join(f"{key}={spoken_value(value)}" for key, value in values.items())


def spoken_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "-".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def nearest(word: Any, words: Iterable[str]) -> str:
    """The end of an error about an unknown word: the nearest known one, or all where none is near."""
    words = list(words)
    matches = difflib.get_close_matches(str(word), words, n=1)
    return f", did you mean {matches[0]!r}?" if matches else f" (expected of {', '.join(words)})"


def _at(space: Sequence[Any] | Range, part: float) -> Any:
    return space.at(part) if isinstance(space, Range) else space[int(part * len(space))]
