"""Can a finished dataset's test result be trusted? Near-copies across the splits, and a probe beside a random split.

Looks at log-mels alone: no Beam, no TensorFlow.
"""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from beam_preprocess.near_copies import THRESHOLD_DB, Clips, near_copies

PROBE = "nearest neighbour on standardised log-mels"

# Clips looked at, and bytes of them, at most: a minute on two cores for 128 x 12 log-mels, in less than a GB of memory.
MAX_HELDOUT, MAX_TRAIN = (20_000, 64 << 20), (64_000, 200 << 20)
_MAX_LISTED = 100
_RANDOM_SPLITS = 3


def probe_accuracy(train: Clips, test: Clips) -> float:
    """Share of test clips, 0 to 1, whose nearest training clip is of their class, each bin standardised over training.

    Chosen by measurement on the notes of near_copies.py, mean of six seeds, random split against grouped:

    nearest neighbour, standardised           0.81   0.67   0.02 s
    LDA, shrinkage 0.1                        0.994  0.974  0.7 s
    ridge classifier, alpha 1000 (1)          0.985  0.964  0.6 s   (0.962  0.897  0.3 s)
    logistic regression, C=1                  0.992  0.960  8 s

    The others are the better classifiers. This one lives on near-copies: its gap is 4 times its scatter over seeds,
    theirs 1 to 3 times, and it needs neither iterations nor two classes.

    Raises:
      ValueError: no clips in one of the two.
    """
    if not len(train) or not len(test):
        raise ValueError(f"the probe needs clips on both sides, got {len(train)} for training and {len(test)} to test")
    flat = [clips.images.reshape(len(clips), -1).astype(np.float32) for clips in (train, test)]
    scaler = StandardScaler().fit(flat[0])
    nearest = KNeighborsClassifier(1, algorithm="brute").fit(scaler.transform(flat[0]), train.labels)
    return float(np.mean(nearest.predict(scaler.transform(flat[1])) == test.labels))


def leak_audit(
    splits: Mapping[str, Clips],
    *,
    seed: int = 0,
    num_clips: Mapping[str, int] | None = None,
    threshold_db: float = THRESHOLD_DB,
    power: float = 2.0,
    max_heldout: int = MAX_HELDOUT[0],
    max_train: int = MAX_TRAIN[0],
    max_probe: int = 20_000,
) -> dict:
    """Near-copies of the training clips in every other split, and what a probe makes of this split and of a random one.

    The probe's random split divides the training and test clips anew, as many of each class to each side, clip by
    clip, equal images together; the accuracy is the mean over 3 of them. Beyond `max_probe` clips the probe samples
    whole groups, since single clips would leave their near-copies behind.

    Args:
      splits: "train" and others, any of them absent or empty.
      seed: of all samples and random splits.
      num_clips: by split, where `splits` holds samples; else all clips are there.
      threshold_db, power: as for `near_copies`.
      max_heldout, max_train, max_probe: clips looked at, at most; the rest is left to chance.
    Returns:
      for JSON: threshold_db; seed; train and splits[name]: num_clips, num_checked; splits[name] also
      num_near_copies, of_another_class; near_copies: the nearest 100, each split, clip, train_clip, difference_db,
      same_class; probe: None without two classes or without training or test clips, else method, own_split and
      random_split (accuracies 0 to 1), num_train, num_test, grouped (whether any group has two clips).
    Raises:
      ValueError: as `near_copies` does.
    """
    num_clips = {name: len(clips) for name, clips in splits.items()} | dict(num_clips or {})
    rng = np.random.default_rng(seed)
    train = splits.get("train")
    checked = train and _sample(train, max_train, rng)
    audit = {
        "threshold_db": threshold_db,
        "seed": seed,
        "train": {"num_clips": num_clips.get("train", 0), "num_checked": len(checked) if checked else 0},
        "splits": {},
        "near_copies": [],
    }
    for name in sorted(set(splits) - {"train"}):
        heldout = _sample(splits[name], max_heldout, rng)
        copies = near_copies(heldout, checked, threshold_db=threshold_db, power=power) if checked else []
        audit["splits"][name] = {
            "num_clips": num_clips[name],
            "num_checked": len(heldout),
            "num_near_copies": len(copies),
            "of_another_class": sum(not copy.same_class for copy in copies),
        }
        audit["near_copies"] += [{"split": name, **dataclasses.asdict(copy)} for copy in copies]
    nearest = sorted(audit["near_copies"], key=lambda copy: copy["difference_db"])[:_MAX_LISTED]
    audit["near_copies"] = [{**copy, "difference_db": round(copy["difference_db"], 2)} for copy in nearest]
    audit["probe"] = _probe(train, splits.get("test"), max_probe, rng)
    return audit


def _probe(train: Clips | None, test: Clips | None, max_probe: int, rng: np.random.Generator) -> dict | None:
    if not train or not test:
        return None
    train, test = _sample_groups(train, test, max_probe, rng)
    labels = np.concatenate([train.labels, test.labels])
    if not train or not test or len(np.unique(labels)) < 2:
        return None
    groups = [*train.groups, *test.groups]
    both = Clips(np.concatenate([train.images, test.images]), labels, [*train.ids, *test.ids], groups)
    random = []
    for _ in range(_RANDOM_SPLITS):
        is_test = _random_split(both, test.labels, rng)
        if is_test.any():
            random.append(probe_accuracy(both.take(np.flatnonzero(~is_test)), both.take(np.flatnonzero(is_test))))
    return {
        "method": PROBE,
        "own_split": round(probe_accuracy(train, test), 4),
        "random_split": round(float(np.mean(random)), 4) if random else None,
        "num_train": len(train),
        "num_test": len(test),
        "grouped": len(set(groups)) < len(groups),
    }


def _random_split(clips: Clips, test_labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool [n], True for test: as many of each class as in `test_labels`, less where equal images don't fit in."""
    equal = {}
    for place, image in enumerate(clips.images):
        equal.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append(place)
    units = [equal[key] for key in equal]
    classes, labels = np.unique(clips.labels, return_inverse=True)
    room = np.bincount(np.searchsorted(classes, test_labels), minlength=len(classes))
    is_test = np.zeros(len(labels), bool)
    for unit in rng.permutation(len(units)):
        need = np.bincount(labels[units[unit]], minlength=len(classes))
        if (need <= room).all():
            room -= need
            is_test[units[unit]] = True
    return is_test


def _sample(clips: Clips, most: int, rng: np.random.Generator) -> Clips:
    if len(clips) <= most:
        return clips
    return clips.take(np.sort(rng.choice(len(clips), most, replace=False)))


def _sample_groups(train: Clips, test: Clips, most: int, rng: np.random.Generator) -> tuple[Clips, Clips]:
    """Whole groups of both, drawn at random until `most` clips are reached, the last group in part."""
    if len(train) + len(test) <= most:
        return train, test
    names, group = np.unique([*train.groups, *test.groups], return_inverse=True)
    kept = np.sort(np.argsort(rng.permutation(len(names))[group], kind="stable")[:most])
    return train.take(kept[kept < len(train)]), test.take(kept[kept >= len(train)] - len(train))


def summary(audit: Mapping) -> list[str]:
    """The audit in two to five plain sentences: what was found, what it means, what to do."""
    lines, copies = [], 0
    train, probe = audit["train"], audit["probe"]
    for name, split in audit["splits"].items():
        if split["num_checked"]:
            copies += split["num_near_copies"]
            share = f"{split['num_near_copies']:,} of {split['num_checked']:,}"
            apart = f"(at most {audit['threshold_db']:g} dB apart)"
            another = f", {split['of_another_class']:,} of another class" if split["of_another_class"] else ""
            lines.append(f"{name}: {share} clips checked have a near-copy in training {apart}{another}.")
    if not train["num_checked"] or not lines:
        return ["There are no clips in training, or none outside it.", "So there is nothing to compare."]
    sampled = [part for part in (train, *audit["splits"].values()) if part["num_checked"] < part["num_clips"]]
    if sampled:
        lines.append(
            f"Only samples were checked ({train['num_checked']:,} of {train['num_clips']:,} training clips): "
            "there may be more near-copies."
        )
    if probe and probe["random_split"] is not None:
        lines.append(_probe_sentence(probe))
    else:
        lines.append("The probe of the split needs two classes, and clips in training and test.")
    if copies:
        lines.append("Results on them are too good: give copies one group (--group=COLUMN), or remove them.")
    return lines


def _probe_sentence(probe: Mapping) -> str:
    own, random = probe["own_split"], probe["random_split"]
    measured = f"A nearest-neighbour probe is right in {own:.1%} of test clips here, {random:.1%} in a random split"
    chance = 2 * np.sqrt((own * (1 - own) + random * (1 - random) / _RANDOM_SPLITS) / probe["num_test"])
    if random - own > chance:
        return f"{measured}: a random split would flatter, keep this one."
    if not probe["grouped"]:
        return f"{measured}: this split is clip by clip too, so if takes of one source belong together, use --group."
    return f"{measured}: no more than chance apart."
