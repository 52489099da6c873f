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
