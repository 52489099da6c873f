"""The properties a split must have, on made-up collections."""

import collections
import random

import pytest

from beam_preprocess.settings import SplitSettings
from beam_preprocess.splits import Item, assign_splits


def collection(sizes, group_size=1):
    """Clips of classes of these sizes, in groups of group_size."""
    return [
        Item(id=f"{label}/{n}", label=label, group=f"{label}/{n // group_size}", content_hash=f"{label}-{n}")
        for label, size in sizes.items()
        for n in range(size)
    ]


def counts(items, split_of):
    return collections.Counter((item.label, split_of[item.id]) for item in items)


THESIS_SIZES = {"violin": 200, "cello": 200, "double-bass": 185, "flute": 156, "oboe": 170, "trumpet": 210, "tuba": 180}


def test_counts_are_exact_class_by_class():
    items = collection(THESIS_SIZES)
    found = counts(items, assign_splits(items, SplitSettings()))
    for label, size in THESIS_SIZES.items():
        assert found[label, "test"] == int(0.2 * size + 0.5)
        assert found[label, "validation"] == int(0.16 * size + 0.5)
        assert found[label, "train"] == size - found[label, "test"] - found[label, "validation"]
    assert sum(count for (_, split), count in found.items() if split == "test") == 260  # the thesis's


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_counts_near(seed):
    generator = random.Random(seed)
    items = []
    for label, size in THESIS_SIZES.items():
        group = 0
        for n in range(size):
            group += generator.random() < 0.3  # groups of three or so, some of ten
            items.append(Item(id=f"{label}/{n}", label=label, group=f"{label}-{group}", content_hash=f"{label}-{n}"))
    split_of = assign_splits(items, SplitSettings(seed=seed))
    splits_of_group = collections.defaultdict(set)
    for item in items:
        splits_of_group[item.group].add(split_of[item.id])
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    found = counts(items, split_of)
    for label, size in THESIS_SIZES.items():
        assert abs(found[label, "test"] - 0.2 * size) <= 3
        assert abs(found[label, "validation"] - 0.16 * size) <= 3


def test_order_of_files_plays_no_part():
    items = collection({"a": 40, "b": 25}, group_size=3)
    shuffled = random.Random(0).sample(items, len(items))
    assert assign_splits(items, SplitSettings()) == assign_splits(shuffled, SplitSettings())


def test_another_seed_divides_otherwise():
    items = collection({"a": 40})
    assert assign_splits(items, SplitSettings(seed=0)) != assign_splits(items, SplitSettings(seed=1))


def test_equal_content_never_stands_in_two_splits():
    items = [
        Item(id=f"{label}/{n}", label=label, group=f"{label}/{n}", content_hash=f"{label}-{n % 20}")
        for label in "ab"
        for n in range(60)  # each content three times
    ]
    split_of = assign_splits(items, SplitSettings())
    splits_of_content = collections.defaultdict(set)
    for item in items:
        splits_of_content[item.content_hash].add(split_of[item.id])
    assert all(len(splits) == 1 for splits in splits_of_content.values())
    assert set(split_of.values()) == {"train", "validation", "test"}


def test_groups_across_classes_stay_whole():
    items = [Item(id=f"{label}/{n}", label=label, group=f"player{n % 12}", content_hash=f"{label}{n}")
             for label in "abc" for n in range(60)]  # fmt: skip
    split_of = assign_splits(items, SplitSettings())
    for player in range(12):
        assert len({split_of[item.id] for item in items if item.group == f"player{player}"}) == 1
    assert all(
        counts(items, split_of)[label, split] > 0 for label in "abc" for split in ("train", "validation", "test")
    )


def test_the_manifests_split_wins():
    items = collection({"a": 20, "b": 20})
    wished = [Item(**{**vars(item), "split": "test"}) if item.id in ("a/3", "b/7") else item for item in items]
    split_of = assign_splits(wished, SplitSettings())
    assert split_of["a/3"] == split_of["b/7"] == "test"
    assert counts(wished, split_of)["a", "test"] == 4  # the wish counts towards the fraction


def test_contradictory_wishes_are_refused():
    items = [Item(id=f"a/{n}", label="a", group="one", content_hash=str(n), split=split)
             for n, split in enumerate(["train", "test"])]  # fmt: skip
    with pytest.raises(ValueError, match="a/0.*a/1|a/1.*a/0"):
        assign_splits(items, SplitSettings())


def test_too_few_groups_are_named():
    items = collection({"many": 30, "few": 30})
    items = [Item(**{**vars(item), "group": "one"}) if item.label == "few" else item for item in items]
    with pytest.raises(ValueError, match="'few' has 30 clips in 1 group"):
        assign_splits(items, SplitSettings())


@pytest.mark.parametrize("sizes", [(30, 2, 1), (10, 10, 1), (1, 1, 1), (5, 1, 20, 1)])
@pytest.mark.parametrize("seed", range(8))
def test_every_class_stands_in_every_split_whatever_its_groups(sizes, seed):
    items = collection({"other": 20})
    for group, size in enumerate(sizes):
        items += [Item(id=f"odd/{group}-{n}", label="odd", group=f"odd{group}", content_hash=f"{group}-{n}")
                  for n in range(size)]  # fmt: skip
    found = counts(items, assign_splits(items, SplitSettings(seed=seed)))
    assert all(found[label, split] for label in ("other", "odd") for split in ("train", "validation", "test"))


@pytest.mark.parametrize("size, fraction", [(6, 0.85), (3, 0.5), (5, 0.8), (40, 0.99)])
def test_training_clips_are_left_whatever_the_fractions(size, fraction):
    items = collection({"a": size, "b": size})
    found = counts(items, assign_splits(items, SplitSettings(test_fraction=fraction)))
    assert all(found[label, split] for label in "ab" for split in ("train", "validation", "test"))


def test_what_groups_across_classes_make_impossible_is_named():
    items = [Item(id=f"{label}/{n}", label=label, group="one" if n < 19 else f"{label}{n}", content_hash=f"{label}{n}")
             for label in "ab" for n in range(20)]  # fmt: skip
    with pytest.raises(ValueError, match="'a' has 20 clips in 2 groups"):
        assign_splits(items, SplitSettings())


def test_a_fraction_of_zero_makes_no_such_split():
    items = collection({"a": 10, "b": 10})
    assert set(assign_splits(items, SplitSettings(validation_fraction=0.0)).values()) == {"train", "test"}


def grouped(num_groups, sizes=(1, 2, 3), labels="abc", prefix=""):
    return [
        Item(id=f"{label}/{prefix}{group}-{n}", label=label, group=f"{label}{prefix}{group}",
             content_hash=f"{label}{prefix}{group}-{n}")
        for label in labels for group in range(num_groups) for n in range(sizes[group % len(sizes)])
    ]  # fmt: skip


def test_a_stable_split_never_moves_a_clip_when_others_come():
    settings = SplitSettings(method="stable")
    before = grouped(60)
    now = before + grouped(200, prefix="new") + grouped(80, labels="d")
    first, second = assign_splits(before, settings), assign_splits(now, settings)
    assert all(second[id] == split for id, split in first.items())
    shares = collections.Counter(second.values())
    assert shares["test"] / len(now) == pytest.approx(0.2, abs=0.05)
    assert shares["validation"] / len(now) == pytest.approx(0.16, abs=0.05)
    # The exact method does move some: what the stable one is for.
    first, second = (assign_splits(items, SplitSettings()) for items in (before, now))
    assert any(second[id] != split for id, split in first.items())


def test_a_stable_split_keeps_groups_whole_and_obeys_the_manifest():
    items = grouped(40)
    wished = [Item(**{**vars(item), "split": "test"}) if item.group == "a7" else item for item in items]
    split_of = assign_splits(wished, SplitSettings(method="stable", seed=5))
    splits_of_group = collections.defaultdict(set)
    for item in wished:
        splits_of_group[item.group].add(split_of[item.id])
    assert all(len(splits) == 1 for splits in splits_of_group.values()) and splits_of_group["a7"] == {"test"}


def test_stable_equal_content_in_two_splits_stays_in_the_held_out_one():
    from beam_preprocess.splits import content_in_two_splits

    items = [Item(**{**vars(item), "content_hash": "one"}) if item.label == "a" else item for item in grouped(30)]
    split_of = assign_splits(items, SplitSettings(method="stable"))
    left_out = content_in_two_splits(items, split_of)
    stay = [item for item in items if item.id not in left_out]
    assert {split_of[item.id] for item in stay if item.label == "a"} == {"test"}
    assert sum(item.label == "b" for item in stay) == 60


def test_a_stable_split_without_training_clips_is_refused():
    items = grouped(40, labels="ab") + grouped(1, labels="c")
    seed = next(
        seed for seed in range(100)
        if SplitSettings(method="stable", seed=seed) and _split_of_c(items[:-1] + grouped(40, labels="c"), seed) !=
        "train"
    )  # fmt: skip
    with pytest.raises(ValueError, match="no training clip of class 'c'"):
        assign_splits(items, SplitSettings(method="stable", seed=seed))


def _split_of_c(items, seed):
    return assign_splits(items, SplitSettings(method="stable", seed=seed))["c/0-0"]


@pytest.mark.parametrize("method, slack", [("exact", 2), ("stable", 60)])
def test_folds_divide_all_but_the_test_split_by_class_and_group(method, slack):
    from beam_preprocess.splits import assign_folds

    items = grouped(100)
    settings = SplitSettings(method=method, folds=5)
    split_of = assign_splits(items, settings)
    fold_of = assign_folds(items, split_of, settings)
    assert set(fold_of) == {item.id for item in items if split_of[item.id] != "test"}
    folds_of_group = collections.defaultdict(set)
    counts = collections.Counter()
    for item in items:
        if item.id in fold_of:
            folds_of_group[item.group].add(fold_of[item.id])
            counts[item.label, fold_of[item.id]] += 1
    assert all(len(folds) == 1 for folds in folds_of_group.values())
    assert {fold for _, fold in counts} == set(range(5))
    for label in "abc":
        sizes = [counts[label, fold] for fold in range(5)]
        assert max(sizes) - min(sizes) <= slack


def test_too_many_folds_are_refused():
    from beam_preprocess.splits import assign_folds

    items = grouped(8)
    settings = SplitSettings(folds=9)
    with pytest.raises(ValueError, match="class 'a' has . groups outside the test split, fewer than --folds=9"):
        assign_folds(items, assign_splits(items, settings), settings)
