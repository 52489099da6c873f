"""What heads are trained from: a feature dataset opened, checked against what it was made from, and loaded once.

Optionally beside another collection's features, which the same heads are tested on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from launch.head_divisions import DivisionName, divide
from model.head_inputs import Division, HeadInputs, LabelledFeatures
from model.head_settings import HeadSettings
from tfdata import in_memory, layout, lineage, storage
from tfdata.in_memory import InMemory
from tfdata.spec import FEATURES, LOG_MEL, DatasetError, DatasetSpec, is_variant
from tfdata.unfinished import first_difference


@dataclasses.dataclass
class Collection:
    """A feature dataset, the clips it was made from where they are still there, and another collection to test on.

    Attributes:
      path, spec: of the features.
      clips_path, clips_spec: of the clips; None where they are gone, or changed since.
      stale: what has changed in the clips since; None where nothing has, or it can't be seen.
      other_path, other_spec: of the other collection's features, or None.
      features, other, other_groups: what `load` has read; of the other collection the clips of classes known here, with
        our labels, without those of audio that heads train or are chosen on.
      num_known: how many those were.
    """

    path: str
    spec: DatasetSpec
    clips_path: str | None
    clips_spec: DatasetSpec | None
    stale: str | None
    other_path: str | None = None
    other_spec: DatasetSpec | None = None
    features: InMemory | None = None
    other: LabelledFeatures | None = None
    other_groups: np.ndarray | None = None
    num_known: int = 0

    def load(self, *, local_cache_dir: str | None, show_progress: bool) -> None:
        """Read the features.

        Raises:
          DatasetError: a shard is missing or damaged, or there is not memory enough.
        """
        self.features = in_memory.load(
            self.path, self.spec, local_cache_dir=local_cache_dir, show_progress=show_progress
        )
        if self.other_spec is None:
            return
        other = in_memory.load(
            self.other_path, self.other_spec, local_cache_dir=local_cache_dir, show_progress=show_progress
        )
        number_of = {name: index for index, name in enumerate(self.spec.class_names)}
        labels = np.array([number_of.get(name, -1) for name in self.other_spec.class_names])[other.labels]
        real = np.concatenate([other.rows(split) for split in other.splits if not is_variant(split)])
        matched = real[labels[real] >= 0]
        chosen = np.concatenate([self.features.rows("train"), self.features.rows("validation")])
        known = np.isin(other.content_hashes[matched], self.features.content_hashes[chosen])
        self.num_known = int(known.sum())
        if known.all():
            raise DatasetError(
                f"every clip of {self.other_path} is a training or validation clip of {self.path} too: heads can't be "
                "tested on what they were trained on"
            )
        self.other = LabelledFeatures(other.array, labels, matched[~known])
        self.other_groups = other.groups[matched[~known]]

    @property
    def unmatched(self) -> dict[str, Any] | None:
        """What of the other collection can't be tested on: classes that only one has, clips known from training.

        None without another collection.
        """
        if self.other_spec is None:
            return None
        ours, theirs = self.spec.class_names, self.other_spec.class_names
        return {
            "only_in_training": [name for name in ours if name not in theirs],
            "only_in_other": [name for name in theirs if name not in ours],
            "num_clips_known": self.num_known,
        }

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What each head's settings.json says of what it was trained from."""
        return {
            "class_names": self.spec.class_names,
            "features": self.spec.fingerprint,
            "weights": self.spec.settings["weights"],
            "image": self.spec.settings["image"],
            **({"stale": self.stale} if self.stale else {}),
        }

    @property
    def test_ids(self) -> list[str]:
        return [id.decode() for id in self.features.ids[self.features.rows("test")]]

    def division(self, division: DivisionName, *, validates: bool) -> Division:
        """The rows of a division.

        Raises:
          DatasetError: nothing to validate on where heads must, or a class has no training clip in it.
        """
        rows = divide(division, self.features, self.spec, validates=validates)
        if validates and not len(rows.validation):
            raise DatasetError(
                f"early_stopping_patience needs validation clips, and {self.path} has none: leave it out, or prepare "
                "the clips with a validation split"
            )
        missing = set(range(len(self.spec.class_names))) - set(np.unique(self.features.labels[rows.train]).tolist())
        if missing:
            where = division.folder.replace("_", " ") or "the train split"
            raise DatasetError(
                f"class {self.spec.class_names[min(missing)]!r} has no training clip in {where} of {self.path}: "
                "prepare the clips again, with more of that class or other splits"
            )
        return rows

    def inputs(self, division: DivisionName, settings: HeadSettings, *, validates: bool) -> HeadInputs:
        """The inputs of heads of these settings.

        Raises:
          DatasetError: as `division`.
          ValueError: a feature is not finite.
        """
        rows = self.division(division, validates=validates)
        return HeadInputs(
            self.features.array,
            self.features.labels,
            rows,
            num_classes=len(self.spec.class_names),
            pooling=settings.pooling,
            standardise=settings.standardise,
            other=self.other,
        )


def open_collection(features: str, *, data: str | None, test_features: str | None, allow_stale: bool) -> Collection:
    """Open the specs and check that they belong together; reads no shard.

    Raises:
      DatasetError: no complete feature dataset; the clips differ from those it was made from (names the field and the
        command that mends it); the other collection's features were made otherwise.
    """
    spec = layout.read_spec(features, FEATURES)
    clips_path, clips_spec, stale = _clips(spec, features, data, allow_stale)
    collection = Collection(features, spec, clips_path, clips_spec, stale)
    if test_features is not None:
        collection.other_path = test_features
        collection.other_spec = _other(test_features, spec, features)
        *_, other_stale = _clips(collection.other_spec, test_features, None, allow_stale)
        collection.stale = "; ".join(filter(None, (stale, other_stale))) or None
    return collection


def _clips(spec: DatasetSpec, features: str, data: str | None, allow_stale: bool):
    """Place and spec of the clips, and what has changed in them; (None, None, None) where they are gone."""
    path = data or spec.parent["path"]
    if data is None and not layout.is_complete(path):
        return None, None, None
    clips = layout.read_spec(path, LOG_MEL)
    difference = lineage.difference(spec, clips)
    if difference is None:
        return path, clips, None
    if not allow_stale:
        raise DatasetError(
            f"{features} was made from clips that differ from those in {path} now: {difference}. "
            f"{lineage.mending_command(features, path)} makes features of them; or go on with --allow_stale, and every "
            "result will say so"
        )
    return None, None, f"made with --allow_stale: the clips in {path} have changed since: {difference}"


def _comparable(spec: DatasetSpec) -> dict[str, Any]:
    """What two feature datasets must share for heads of one to be tested on the other."""
    return {
        "log_mel": spec.parent.get("settings", {}).get("log_mel"),  # an older melcache did not record it
        "image": spec.settings["image"],
        "weights.digest": spec.settings["weights"]["digest"],
        "compute_precision": spec.settings["compute_precision"],
        "shape": list(spec.array.shape),
    }


def _other(path: str, spec: DatasetSpec, features: str) -> DatasetSpec:
    other = layout.read_spec(path, FEATURES)
    if difference := first_difference(_comparable(spec), _comparable(other)):
        name, our_value, their_value = difference
        raise DatasetError(
            f"--test_features={path} was made with {name}={their_value}, {features} with {our_value}, so that heads of "
            f"one can't be tested on the other: melcache cache --data={other.parent['path']} --like={features} "
            f"--output={storage.absolute(path).rstrip('/')}_like"
        )
    if not set(spec.class_names) & set(other.class_names):
        raise DatasetError(
            f"{path} and {features} have no class in common ({', '.join(other.class_names)} against "
            f"{', '.join(spec.class_names)}): classes are matched by name"
        )
    return other
