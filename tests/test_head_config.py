"""heads.toml: what it asks for, and what is said of a file that can't be used."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import time

import fsspec
import numpy as np
import pytest
import scipy.stats

from launch.head_config import read_head_config
from model.head_settings import HeadSettings
from model.thesis import SETUPS

EXAMPLE = pathlib.Path(__file__).parent.parent / "docs" / "heads.toml"


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "heads.toml").write_text(text)
        return read_head_config(str(tmp_path / "heads.toml"))

    return read


def test_the_example_in_the_docs_asks_for_what_it_says():
    config = read_head_config(str(EXAMPLE))
    said = re.search(r"asks for (\d+) \+ (\d+) \+ (\d+) heads, each trained with (\d+) seeds", EXAMPLE.read_text())
    singles, in_grid, drawn, seeds = map(int, said.groups())
    names = list(config.setups)
    assert len(names) == singles + in_grid + drawn and config.num_seeds == seeds and list(config.varied) == names
    assert names[:singles] == ["setup4", "regularised", "adam", "softmax"]
    assert config.setups["setup4"] == dataclasses.replace(SETUPS["setup4"], epochs=40)
    assert config.setups["adam"] == HeadSettings(
        hidden_units=(1024, 512), pooling="average", dropout=0.3, l2=1e-4, label_smoothing=0.1, optimizer="adam",
        learning_rate=3e-4, learning_rate_rule="cosine", warmup_epochs=2, batch_size=30, epochs=40,
    )  # fmt: skip
    assert config.setups["softmax"].hidden_units == () and config.varied["setup4"] == {}
    assert config.varied["regularised"] == {"dropout": 0.3, "l2": 1e-4, "label_smoothing": 0.1}
    combinations = itertools.product([(512,), (1024, 512)], [0.0, 0.3, 0.5], ["none", "average"])
    for name, (units, dropout, pooling) in zip(names[singles : singles + in_grid], combinations, strict=True):
        assert name == f"grid-hidden_units={'-'.join(map(str, units))},dropout={dropout},pooling={pooling}"
        changes = {"hidden_units": units, "dropout": dropout, "pooling": pooling}
        assert config.setups[name] == dataclasses.replace(SETUPS["setup2"], epochs=40, **changes)
        assert config.varied[name] == changes
    for number, name in enumerate(names[singles + in_grid :], 1):
        assert name == f"adam-search-{number:04}"
        assert config.setups[name] == dataclasses.replace(config.setups["adam"], **config.varied[name])
        assert set(config.varied[name]) == {"learning_rate", "batch_size", "dropout", "class_weights"}
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,=-]*", name) and len(name) <= 60 for name in names)


def test_what_has_no_meaning_is_inherited_by_no_combination(read):
    config = read("""
        [setup.cosine]
        base = "setup2"
        learning_rate_rule = "cosine"
        warmup_epochs = 3
        [grid]
        base = "cosine"
        optimizer = ["sgd", "adam"]
        learning_rate_rule = ["cosine", "constant", "inverse_time"]
        """)
    assert config.setups["cosine"].decay_rate == 0.0  # setup2's 0.9 belongs to inverse_time
    for settings in config.setups.values():
        is_sgd = settings.optimizer == "sgd"
        assert (settings.momentum, settings.nesterov) == ((0.9, True) if is_sgd else (0.0, False))
        assert settings.warmup_epochs == (3 if settings.learning_rate_rule == "cosine" else 0)
    assert len(config.setups) == 7 and len(set(config.setups.values())) == 6  # cosine itself is one of the grid


SEARCH = """
[random]
base = "setup1"
num = {num}
seed = {seed}
{first}
{second}
"""
RATE, BATCH = "learning_rate = {low = 1e-4, high = 1e-1, log = true}", "batch_size = {low = 1, high = 10}"


def test_draws_follow_their_ranges_and_nothing_but_seed_and_key(read):
    drawn = read(SEARCH.format(num=2000, seed=0, first=RATE, second=BATCH))
    rates = np.array([settings.learning_rate for settings in drawn.setups.values()])
    batches = [settings.batch_size for settings in drawn.setups.values()]
    assert len(set(drawn.setups.values())) == 2000
    assert rates.min() >= 1e-4 and rates.max() <= 1e-1
    assert scipy.stats.kstest(rates, scipy.stats.loguniform(1e-4, 1e-1).cdf).pvalue > 0.01
    assert scipy.stats.chisquare([batches.count(size) for size in range(1, 11)]).pvalue > 0.01
    fewer = read(SEARCH.format(num=30, seed=0, first=BATCH, second=RATE))  # fewer of them, keys in another order
    assert list(fewer.setups.values()) == list(drawn.setups.values())[:30]
    other = read(SEARCH.format(num=30, seed=1, first=RATE, second=BATCH))
    assert not set(other.setups.values()) & set(fewer.setups.values())
    # The same on every machine and in every version: names and values are what runs are continued by.
    told = json.dumps(fewer.varied, sort_keys=True).encode()
    assert list(fewer.setups)[:2] == GOLDEN_NAMES and hashlib.sha256(told).hexdigest()[:16] == GOLDEN_DIGEST


GOLDEN_NAMES = ["random-batch_size=1,learning_rate=0.00605", "random-batch_size=8,learning_rate=0.0139"]
GOLDEN_DIGEST = "29a30fa29fe467ec"


def test_a_search_may_take_all_there_is_and_no_more(read):
    first, second = "dropout = [0.0, 0.1, 0.2]", "nesterov = [false, true]"
    config = read(SEARCH.format(num=6, seed=3, first=first, second=second))
    assert {(s.dropout, s.nesterov) for s in config.setups.values()} == set(
        itertools.product([0.0, 0.1, 0.2], [False, True])
    )
    with pytest.raises(ValueError, match=r"num=7 different heads are asked for, but there are only 6"):
        read(SEARCH.format(num=7, seed=3, first=first, second=second))
    with pytest.raises(ValueError, match="num=5000 different heads are asked for, but no more than 501 were found"):
        read(SEARCH.format(num=5000, seed=3, first="dropout = {low = 0, high = 0.5}", second=""))


def test_ten_thousand_heads_are_read_in_a_moment_from_a_bucket_like_place():
    values = ", ".join(f"{rate / 1e6}" for rate in range(1, 2501))
    text = f'\ufeff[grid.a]\nbase = "setup3"\nlearning_rate = [{values}]\ndropout = [0.0, 0.1, 0.2, 0.3]\n'
    with fsspec.open("memory://configs/heads.toml", "wb") as file:
        file.write(text.encode())
    start = time.monotonic()
    config = read_head_config("memory://configs/heads.toml")
    assert len(config.setups) == 10_000 and config.num_seeds is None and time.monotonic() - start < 5
    with fsspec.open("memory://configs/heads.toml", "ab") as file:
        file.write(b"[setup.more]\nbase = 'setup1'\n")
    with pytest.raises(ValueError, match=r"\[grid.a\]: makes 10,001 heads of this file, expected at most 10,000"):
        read_head_config("memory://configs/heads.toml")


SETUP, GRID, RANDOM = (f"[{table}]\nbase = 'setup1'\n" for table in ("setup.a", "grid", "random"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "describes no head"),
        ("seeds = 3", "describes no head"),
        ("seeds = 0\n[setup.a]\nbase = 'setup1'", "seeds must be a whole number from 1 on, got 0"),
        ("epochs = 1.5\n[setup.a]\nbase = 'setup1'", "epochs must be a whole number, got 1.5"),
        ("seed = 3", "unknown key or table 'seed', did you mean 'seeds'?"),
        ("[setups.a]", "unknown key or table 'setups', did you mean 'setup'?"),
        (SETUP + "dropuot = 0.3", "[setup.a]: unknown key 'dropuot', did you mean 'dropout'?"),
        (SETUP + "dropout = 1.5", "[setup.a]: dropout must be at least 0 and below 1, got 1.5"),
        (SETUP + "l2 = nan", "[setup.a]: l2 must be at least 0 and finite, got nan"),
        (SETUP + "batch_size = '20'", "[setup.a]: batch_size must be a whole number, got '20'"),
        (SETUP + "hidden_units = 512", "hidden_units must be a list of whole numbers such as"),
        (SETUP + "hidden_units = '512'", "got '512'"),
        (SETUP + "hidden_units = [[512]]", "hidden_units must be whole numbers from 1 to 65536, got"),
        (SETUP + "optimizer = 'adm'", "optimizer must be one of sgd, adam, got 'adm'"),
        (SETUP + "optimizer = 'adam'\nmomentum = 0.5", "[setup.a]: momentum=0.5 has no meaning"),
        ("[setup.a]\nbase = 'steup1'", "[setup.a]: unknown base 'steup1', did you mean 'setup1'?"),
        ("[setup.a]\nbase = ['setup1']", "base must be the name of a setup, got ['setup1']"),
        ("[setup.a]\nbase = 'b'\n[setup.b]\nbase = 'setup1'", "[setup.a]: base='b' must stand before"),
        ("[setup.a]\nbase = 'a'", "[setup.a]: base='a' must stand before"),
        ("[setup.a]\nhidden_units = [3]", "[setup.a]: learning_rate, batch_size, epochs must be given, or a base"),
        (SETUP + "[setup.a]", "not valid TOML"),
        (SETUP + "[setup.A]\nbase = 'setup1'", "[setup.A]: two heads are called 'A'"),
        ("[setup.a-0001]\nbase = 'setup1'\n[random.a]\nbase='setup1'\nnum = 2\nl2 = {low=0.1, high=0.2}\n"
         "decay_rate = {low=0.1, high=0.2}\nlabel_smoothing = {low=0.1, high=0.2}\ndropout = {low=0.1, high=0.2}",
         "[random.a]: two heads are called 'a-0001'"),
        ("[setup.setup1]\nbase = 'setup1'\ndropout = 0.1", "[setup.setup1]: setup1 is a setup of the thesis"),
        ("[setup.'a/b']\nbase = 'setup1'", "'a/b' can't name heads"),
        ("[setup.Unfinished]\nbase = 'setup1'", "'Unfinished' can't name heads"),
        (f"[setup.{'a' * 51}]\nbase = 'setup1'", "can't name heads: up to 50"),
        ("[setup]\nbase = 'setup1'", "a setup has a name, [setup.NAME], but base='setup1' has none"),
        ("[[setup]]\nbase = 'setup1'", "setup must be a table, written [setup.NAME]"),
        ("grid = 3", "grid must be a table, written [grid]"),
        ("epochs = 9\n[grid]\nbase = 'setup1'\nepochs = [3]", "[grid]: epochs stands here and at the top of the file"),
        ("[grid]", "[grid]: hidden_units, learning_rate, batch_size, epochs must be given"),
        ("[grid]\nbase = 'setup1'", "[grid]: no key has a list of values"),
        (GRID + "dropout = 0.3", "[grid]: dropout must be a list of values, got 0.3"),
        (GRID + "dropout = []", "[grid]: dropout is an empty list"),
        (GRID + "dropout = [0.1, 1e-1]", "[grid]: dropout has the value 0.1 twice"),
        (GRID + "dropout = [0.1, -1]", "[grid]: dropout must be at least 0 and below 1, got -1"),
        (GRID + "hidden_units = [512]", "hidden_units must be a list of lists, such as"),
        (GRID + "dropout = {low = 0.1, high = 0.2}", "only [random] draws from ranges"),
        ("[grid.dropout]\nbase = 'setup1'\nl2 = [0.1]", "[grid.dropout]: dropout is a setting: give this grid table"),
        ("[grid.a]\nbase = 'setup1'\noptimizer = ['sgd', 'adam']\nmomentum = [0.0, 0.9]",
         "[grid.a]: the combination optimizer=adam,momentum=0.9 is impossible, momentum=0.9 has no meaning"),
        ("epochs = 2\n[grid]\nbase = 'setup1'\nlearning_rate_rule = ['cosine']\nwarmup_epochs = [0, 2]",
         "the combination learning_rate_rule=cosine,warmup_epochs=2 is impossible, warmup_epochs must be below"),
        (GRID + "learning_rate = [0.1, 0.2]\nnum = 3", "[grid]: unknown key 'num'"),
        (RANDOM + "num = 10001\nl2 = {low = 0, high = 1}", "[random]: makes 10,001 heads"),
        (RANDOM + "seed = -1\nl2 = {low = 0, high = 1}", "seed must be a whole number from 0 on"),
        (RANDOM + "num = true\nl2 = {low = 0, high = 1}", "number from 1 on, got True"),
        ("[random]\nbase = 'setup1'", "[random]: no key has a list of choices or a range"),
        (RANDOM + "dropuot = {low = 0, high = 0.5}", "unknown key 'dropuot', did you mean 'dropout'?"),
        (RANDOM + "l2 = {low = 0, hihg = 1}", "unknown key 'hihg' in the range of l2, did you mean 'high'?"),
        (RANDOM + "l2 = {low = 0}", "the range of l2 needs low and high, got {'low': 0}"),
        (RANDOM + "l2 = {low = 1, high = 0.5}", "below high in the range of l2, got 1.0 and 0.5"),
        (RANDOM + "l2 = {low = 0, high = 1, log = true}", "starts above 0, but l2 has low=0.0"),
        (RANDOM + "l2 = {low = 0, high = 1, log = 1}", "log in the range of l2 must be true or false"),
        (RANDOM + "dropout = {low = 0, high = 1}", "dropout must be at least 0 and below 1, got 1"),
        (RANDOM + "batch_size = {low = 1.5, high = 9}", "batch_size must be a whole number, got 1.5"),
        (RANDOM + "nesterov = {low = 0, high = 1}", "nesterov is no number and has no range"),
        (RANDOM + "l2 = 3", "[random]: l2 must be a list of values, got 3"),
        ("[setup.a]\nbase = setup1", "not valid TOML: Invalid value (at line 2, column 8)"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_sentence(text, expected, read, tmp_path):
    with pytest.raises(ValueError) as raised:
        read(text)
    message = str(raised.value)
    assert expected in message and message.startswith(f"{tmp_path}/heads.toml") and "\n" not in message, message


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_head_config(str(tmp_path / "none.toml"))
    with pytest.raises(ValueError, match="is a directory"):
        read_head_config(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"[setup.a]\n# caf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_head_config(str(tmp_path / "latin.toml"))
