"""heads.toml: which heads to train, one by one, as a grid, or drawn at random.

  seeds = 5                        # optional: how often each head is trained
  epochs = 30                      # optional: of all heads, instead of their base's

  [setup.wide]                     # one head: the thesis's setup4 with other layers
  base = "setup4"
  hidden_units = [2048]
  dropout = 0.3

  [grid]                           # all combinations of the lists: 2 x 3 = 6 heads
  base = "wide"
  hidden_units = [[512], [1024, 512]]
  dropout = [0.0, 0.3, 0.5]

  [random]                         # 20 different heads, drawn from lists and ranges
  base = "setup1"
  num = 20                         # 50 where it is left out
  seed = 0
  optimizer = ["adam"]
  learning_rate = { low = 1e-4, high = 1e-2, log = true }
  batch_size = { low = 16, high = 128, log = true }

Keys are HeadSettings' fields. `base` names one of the thesis's setups or a [setup.NAME]; for a setup, one that stands
earlier in the file. Several grids and random searches are written [grid.NAME] and [random.NAME].

What a head takes from its base and what has no meaning beside the table's own values is left at its default: with
optimizer = "adam" the base's momentum and nesterov, with another learning_rate_rule its decay_rate or warmup_epochs.
Where the table itself gives such a value, that is an error. A range gives whole numbers where the setting is one, else
numbers of three digits; log = true draws evenly by factors. A search with a larger num begins with the same heads.

A combination is called by what varies, as grid-hidden_units=1024-512,dropout=0.3, or by number, as grid-0007, in a
table where one of these names would be longer than 60 characters.
"""

import dataclasses
import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch import head_values
from launch.head_values import FIELDS, nearest
from model import thesis
from model.head_settings import HAS_MEANING_WITH, HeadSettings
from tfdata import storage, unfinished

MAX_HEADS = 10_000
MAX_NAME_LENGTH = 60
_NEEDED = [name for name, field in FIELDS.items() if field.default is dataclasses.MISSING]
_TOP_KEYS = ("seeds", "epochs", "setup", "grid", "random")
_KEYS = {"setup": ("base",), "grid": ("base",), "random": ("base", "num", "seed")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")  # a folder on any disk and in gs://, with room for a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What a heads.toml asks for.

    Attributes:
      setups: name to settings: setups, then grids, then random searches, each in the file's order. A name is a valid
        folder name on disks and in gs://, at most 60 characters, and differs from the others by more than case.
      varied: name to {setting: value}: of a setup what differs from its base, of a combination what its table gives.
      num_seeds: how often each head is trained; None where the file leaves it open.
    """

    setups: Mapping[str, HeadSettings]
    varied: Mapping[str, Mapping[str, Any]]
    num_seeds: int | None


def read_head_config(path: str) -> HeadConfig:
    """Read a heads.toml, local or gs://; the module's docstring gives the grammar.

    Raises:
      ValueError: there is no such file, or something in it can't be used: one sentence with file, table, key and value.
    """
    document = _document(path)
    for key in document:
        if key not in _TOP_KEYS:
            raise ValueError(f"{path}: unknown key or table {key!r}{nearest(key, _TOP_KEYS)}")
    if "seeds" in document:
        head_values.whole_number(path, "seeds", document["seeds"], lowest=1)
    if "epochs" in document:
        head_values.checked(path, "epochs", document["epochs"])
    tables = [table for kind in _KEYS if kind in document for table in _tables(path, kind, document[kind])]
    heads = _Heads(document.get("epochs"), [table.name for table in tables if table.kind == "setup"])
    for table in tables:
        heads.add(table)
    if not heads.setups:
        raise ValueError(f"{path} describes no heads: give it a [setup.NAME], a [grid] or a [random] table")
    return HeadConfig(setups=heads.setups, varied=heads.varied, num_seeds=document.get("seeds"))


@dataclasses.dataclass(frozen=True)
class _Table:
    kind: str
    name: str
    where: str  # file and table, for errors
    content: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """What the table says of settings."""
        return {key: value for key, value in self.content.items() if key not in _KEYS[self.kind]}


class _Heads:
    """The heads of one file, as its tables are gone through."""

    def __init__(self, epochs: int | None, setup_names: Sequence[str]):
        self.setups: dict[str, HeadSettings] = {}
        self.varied: dict[str, dict[str, Any]] = {}
        self._epochs, self._setup_names = epochs, setup_names
        self._bases: dict[str, HeadSettings] = dict(thesis.SETUPS)
        self._folders: set[str] = set()

    def add(self, table: _Table) -> None:
        where, known = table.where, [*_KEYS[table.kind], *FIELDS]
        for key in table.content:
            if key not in known:
                raise ValueError(f"{where}: unknown key {key!r}{nearest(key, known)}")
        base = self._base(table)
        if self._epochs is not None and "epochs" in table.values:
            raise ValueError(f"{where}: epochs stands here and at the top of the file: leave one of the two out")
        inherited = {name: getattr(base, name) for name in FIELDS} if base else {}
        if self._epochs is not None:
            inherited["epochs"] = self._epochs
        missing = [name for name in _NEEDED if name not in inherited and name not in table.values]
        if missing:
            raise ValueError(
                f"{where}: {', '.join(missing)} must be given, or a base that has them (of {', '.join(self._bases)})"
            )
        {"setup": self._add_setup, "grid": self._add_grid, "random": self._add_random}[table.kind](table, inherited)

    def _base(self, table: _Table) -> HeadSettings | None:
        if "base" not in table.content:
            return None
        name = table.content["base"]
        if not isinstance(name, str):
            raise ValueError(f"{table.where}: base must be the name of a setup, got {name!r}")
        if name in self._bases:
            return self._bases[name]
        if name in self._setup_names:
            raise ValueError(f"{table.where}: base={name!r} must stand before the setup that builds on it: move it up")
        raise ValueError(f"{table.where}: unknown base {name!r}{nearest(name, self._bases)}")

    def _add_setup(self, table: _Table, inherited: Mapping[str, Any]) -> None:
        given = {key: head_values.checked(table.where, key, value) for key, value in table.values.items()}
        try:
            settings = _settings(inherited, given)
        except ValueError as error:
            raise ValueError(f"{table.where}: {error}") from None
        own = thesis.SETUPS.get(table.name)
        if own and settings != dataclasses.replace(own, epochs=settings.epochs):
            raise ValueError(
                f"{table.where}: {table.name} is a setup of the thesis, whose results would stand beside this other "
                "head: give it another name"
            )
        changed = {key: value for key, value in given.items() if key not in inherited or inherited[key] != value}
        self._keep(table, table.name, settings, changed)
        self._bases[table.name] = settings

    def _add_grid(self, table: _Table, inherited: Mapping[str, Any]) -> None:
        choices = {key: head_values.choices(table.where, key, values) for key, values in table.values.items()}
        if not choices:
            raise ValueError(f"{table.where}: no key has a list of values, such as dropout = [0.0, 0.3]")
        self._check_room(table, math.prod(map(len, choices.values())))
        combinations = [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
        varying = [key for key, values in choices.items() if len(values) > 1]
        self._add_combinations(table, inherited, combinations, varying)

    def _add_random(self, table: _Table, inherited: Mapping[str, Any]) -> None:
        num = head_values.whole_number(table.where, "num", table.content.get("num", 50), lowest=1)
        seed = head_values.whole_number(table.where, "seed", table.content.get("seed", 0), lowest=0)
        self._check_room(table, num)
        spaces = {
            key: (head_values.value_range if isinstance(value, dict) else head_values.choices)(table.where, key, value)
            for key, value in table.values.items()
        }
        if not spaces:
            raise ValueError(f"{table.where}: no key has a list of choices or a range {{ low = ..., high = ... }}")
        combinations = head_values.draw(table.where, spaces, num=num, seed=seed)
        varying = [key for key, space in spaces.items() if isinstance(space, head_values.Range) or len(space) > 1]
        self._add_combinations(table, inherited, combinations, varying)

    def _add_combinations(
        self,
        table: _Table,
        inherited: Mapping[str, Any],
        combinations: Sequence[Mapping[str, Any]],
        varying: Sequence[str],
    ) -> None:
        told = [{key: values[key] for key in varying or values} for values in combinations]
        names = [f"{table.name}-{head_values.spoken(values)}" for values in told]
        if max(map(len, names)) > MAX_NAME_LENGTH:
            names = [f"{table.name}-{number:04}" for number in range(1, len(combinations) + 1)]
        for name, combination in zip(names, combinations):
            try:
                settings = _settings(inherited, combination)
            except ValueError as error:
                told = head_values.spoken(combination)
                raise ValueError(
                    f"{table.where}: the combination {told} is impossible, {error}, or divide the table in two"
                ) from None
            self._keep(table, name, settings, combination)

    def _check_room(self, table: _Table, num: int) -> None:
        total = len(self.setups) + num
        if total > MAX_HEADS:
            raise ValueError(f"{table.where}: makes {total:,} heads of this file, expected at most {MAX_HEADS:,}")

    def _keep(self, table: _Table, name: str, settings: HeadSettings, varied: Mapping[str, Any]) -> None:
        if name.casefold() in self._folders:  # on some disks, names that differ by case are one folder
            raise ValueError(f"{table.where}: two heads are called {name!r}: give this table another name")
        self._folders.add(name.casefold())
        self.setups[name], self.varied[name] = settings, dict(varied)


def _settings(inherited: Mapping[str, Any], given: Mapping[str, Any]) -> HeadSettings:
    """What is given over what is inherited, without what is inherited and has no meaning beside it."""
    values = {**inherited, **given}
    for name, (needs, choice) in HAS_MEANING_WITH.items():
        if name not in given and values.get(needs, FIELDS[needs].default) != choice:
            values.pop(name, None)
    return HeadSettings(**values)


def _document(path: str) -> dict[str, Any]:
    if storage.is_directory(path):
        raise ValueError(f"{path} is a directory, expected a TOML file that describes heads")
    if not storage.exists(path):
        raise ValueError(f"{path} is not there: name a TOML file that describes heads")
    try:
        return tomllib.loads(storage.read_bytes(path).decode("utf-8-sig"))  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def _tables(path: str, kind: str, group: Any) -> Iterator[_Table]:
    """The tables of [setup.NAME], or of [grid] or [random] and those below them."""
    if not isinstance(group, dict):
        raise ValueError(f"{path}: {kind} must be a table, written [{kind}{'.NAME' if kind == 'setup' else ''}]")
    if kind == "setup":
        own, named = {}, group
        for key, value in group.items():
            if not isinstance(value, dict):
                raise ValueError(f"{path}, [setup]: a setup has a name, [setup.NAME], but {key}={value!r} has none")
    else:
        # A table below [grid] or [random] is another grid or search, unless it looks like a setting's range.
        named = {
            key: value
            for key, value in group.items()
            if isinstance(value, dict) and key not in FIELDS and not set(value) & set(head_values.RANGE_KEYS)
        }
        own = {key: value for key, value in group.items() if key not in named}
    for key, value in own.items():
        if isinstance(value, dict) and key in FIELDS and value and not set(value) & set(head_values.RANGE_KEYS):
            raise ValueError(f"{path}, [{kind}.{key}]: {key} is a setting: give this {kind} table another name")
    if own or (kind != "setup" and not named):
        yield _Table(kind, kind, f"{path}, [{kind}]", own)
    for name, content in named.items():
        where = f"{path}, [{kind}.{name}]"
        if not _NAME.fullmatch(name) or name.casefold() == unfinished.FOLDER:
            raise ValueError(
                f"{where}: {name!r} can't name heads: up to 50 letters, digits, - and _, not {unfinished.FOLDER!r}"
            )
        yield _Table(kind, name, where, content)
