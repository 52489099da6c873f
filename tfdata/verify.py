"""Is a dataset directory what its spec says? A verdict for each shard, and for the dataset as a whole.

Reads every byte, without TensorFlow.
"""

import collections
import dataclasses

import numpy as np
from tqdm import tqdm

from tfdata import layout, schema, shards, storage
from tfdata.spec import DatasetError, DatasetSpec, content_digest, is_variant


@dataclasses.dataclass(frozen=True)
class ShardVerdict:
    """Whether a shard is as it was written, and if not, what is wrong with it."""

    name: str
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.reason is None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict for each shard in the spec's order, and what is wrong beyond single shards."""

    spec: DatasetSpec
    shards: list[ShardVerdict]
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems and all(shard.ok for shard in self.shards)


def verify(directory: str, *, show_progress: bool = False) -> Verdict:
    """Check a dataset directory, local or gs://.

    Each shard: it is there, its bytes are those that were written, every record's checksum, every clip's fields and
    values. The dataset: COMPLETED names the spec's fingerprint, no clip stands there twice, neither a group nor equal
    audio in two splits, the clips are those the fingerprint was made from, no shard is there that the spec doesn't
    know. Splits of variants hold each clip once more, and no others than the split they vary.

    Raises:
      DatasetError: there is no complete dataset, or its spec can't be read.
    """
    spec = layout.read_spec(directory)
    problems = []
    completed = storage.read_text(storage.join(directory, layout.COMPLETED)).strip()
    if completed != spec.fingerprint:
        problems.append(
            f"{layout.COMPLETED} names fingerprint {completed[:12] or 'none'}, {layout.SPEC} has "
            f"{spec.fingerprint[:12]}: one of them is another dataset's"
        )
    verdicts, seen = [], _Seen()
    with tqdm(
        total=sum(split.num_clips for split in spec.splits.values()),
        desc="verify",
        unit=" clips",
        disable=not show_progress,
    ) as bar:
        for split in spec.splits:
            for shard in shards.of_split(directory, spec, split):
                clips, reason = _check_shard(shard, spec)
                verdicts.append(ShardVerdict(shard.name, reason))
                seen.add(split, clips, spec)
                bar.update(shard.num_clips)
    problems += [
        f"{name} is a shard that {layout.SPEC} does not know: remove it"
        for name in layout.stray_shards(directory, spec)
    ]
    if all(verdict.ok for verdict in verdicts):
        problems += seen.problems(spec)
    return Verdict(spec, verdicts, problems)


def _check_shard(shard: shards.Shard, spec: DatasetSpec) -> tuple[list[schema.Clip], str | None]:
    """Its clips, and what is wrong with it, in a sentence without its name."""
    clips = []
    try:
        for index, record in enumerate(shards.read(shard)):
            clip, array = schema.decode_clip(record, spec)
            clips.append(clip)
            if not 0 <= clip.label < len(spec.class_names) or not np.isfinite(array).all():
                return [], f"record {index} ({clip.id}) has a label or values that can't be"
    except DatasetError as error:
        return [], str(error).removeprefix(f"{shard.path} ")
    except OSError as error:
        return [], f"can't be read ({error})"
    except (KeyError, ValueError) as error:
        return [], f"record {len(clips)} is of another kind of dataset ({type(error).__name__}: {error})"
    return clips, None


class _Seen:
    """What the clips of all shards are, for the checks that need all of them."""

    def __init__(self):
        self._ids = collections.defaultdict(
            collections.Counter
        )  # of each split of variants, and of all others together
        self._splits_of = {"group": collections.defaultdict(set), "equal audio": collections.defaultdict(set)}
        self._contents = collections.defaultdict(list)  # by split

    def add(self, split: str, clips: list[schema.Clip], spec: DatasetSpec) -> None:
        for clip in clips:
            self._ids[split if is_variant(split) else ""][clip.id] += 1
            self._contents[split].append((clip.id, spec.class_names[clip.label], clip.content_hash, clip.fold))
            if not is_variant(split):
                self._splits_of["group"][clip.group].add(split)
                self._splits_of["equal audio"][clip.content_hash].add(split)

    def problems(self, spec: DatasetSpec) -> list[str]:
        found = [
            f"{id} stands in {split or 'it'} {count} times"
            for split, ids in self._ids.items()
            for id, count in ids.items()
            if count > 1
        ][:5]
        for what, splits_of in self._splits_of.items():
            for key, splits in splits_of.items():
                if len(splits) > 1:
                    found.append(f"{what} {key} stands in {' and '.join(sorted(splits))}")
                    break
        real = ((split, *clip) for split, clips in self._contents.items() if not is_variant(split) for clip in clips)
        if content_digest(real) != spec.content_digest:
            found.append("its clips are not those that its fingerprint was made from")
        for split in spec.splits:
            for variant in layout.variant_splits(spec, split):
                if self._contents[variant] != self._contents[split]:
                    found.append(f"{variant} does not hold the clips of {split} in their order")
        return found
