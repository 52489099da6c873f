"""How every stage begins, refuses and takes up again: OUTPUT/unfinished says which job a directory is being made by.

    job.json        everything that decides the result
    lock            held while a job runs (job_lock.py)
    shards/NAME     for each shard that is written: what was to be in it, its sha256, bytes and clips
    clearing        while the folder is emptied for another job

A command that is started again with the same settings continues where it was interrupted; one with others is refused,
and told which setting differs.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfdata import job_lock, storage
from tfdata.spec import DatasetError, SplitInfo

FOLDER = "unfinished"
JOB, _LOCK, _SHARDS, _CLEARING = "job.json", "lock", "shards", "clearing"


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A shard file as it was written: a digest of what was to be in it, the sha256 of its bytes, bytes and clips."""

    content: str
    digest: str
    num_bytes: int
    num_clips: int


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """The folder for a job's own files below the directory `output`; gone when the job is done."""

    output: str

    def path(self, *names: str) -> str:
        return storage.join(self.output, FOLDER, *names)

    def check_free(self, *, done_marker: str, may_hold: Iterable[str] = (), or_complete: bool = False) -> None:
        """Check that `output` is fresh or unfinished (or complete, where that is allowed).

        Raises:
          DatasetError: it is complete already, or holds something else.
        """
        names = storage.list_names(self.output)
        if done_marker in names and or_complete:
            return
        if done_marker in names:
            raise DatasetError(f"{self.output} is already complete: choose another --output, or remove it first")
        foreign = sorted(set(names) - set(may_hold)) if FOLDER not in names else []
        if foreign:
            raise DatasetError(
                f"{self.output} is not empty and was not begun by this command (it holds {foreign[0]}): "
                "choose another --output, or empty it first"
            )

    @contextlib.contextmanager
    def held(self, **allowed) -> Iterator[None]:
        """Hold the directory for one job.

        Args:
          done_marker: the file that says the directory is complete.
          may_hold: other files that may stand in a fresh directory.
          or_complete: whether it may be complete.
        Raises:
          DatasetError: complete already, not empty, not writable, or another job is at work in it.
        """
        self.check_free(**allowed)
        was_there = storage.is_directory(self.output)
        with contextlib.ExitStack() as stack:
            try:
                storage.make_directory(self.path(""))
                stack.enter_context(job_lock.held(self.path(_LOCK)))
            except OSError as error:
                raise DatasetError(
                    f"can't write to --output={self.output} ({error.strerror or error}): "
                    "choose a directory that you may write to"
                ) from error
            self.check_free(**allowed)  # another job may have just finished it
            if storage.exists(self.path(_CLEARING)):
                self.clear()
            try:
                yield
            finally:
                if storage.list_names(self.path("")) == [_LOCK]:  # refused before anything was begun
                    storage.remove_tree(self.path("") if was_there else self.output)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Begin the job, or take up the one begun here before; to be called while `held`.

        Args:
          identity: everything that decides the result; nested settings are compared field by field.
        Raises:
          DatasetError: a job of another identity was begun here.
        """
        if self.check_same(identity):
            storage.remove_temporaries(self.output)
        storage.write_text(self.path(JOB), json.dumps(identity, indent=2))

    def check_same(self, identity: Mapping[str, Any]) -> bool:
        """Whether a job of this identity was begun here; False where none was.

        Raises:
          DatasetError: one of another identity was; names the first field that differs.
        """
        try:
            begun = json.loads(storage.read_text(self.path(JOB)))
        except FileNotFoundError:
            return False  # interrupted before anything was done
        if difference := first_difference(begun, identity):
            name, then, now = difference
            raise DatasetError(
                f"{self.output} holds an unfinished job with {name}={then}, this one has {name}={now}: repeat that "
                f"job's command to finish it, or remove {self.output}"
            )
        return True

    def shard_path(self, name: str) -> str:
        return storage.join(self.output, name)

    def write_shard(self, name: str, data: bytes, *, num_clips: int, content: str) -> None:
        """Write a shard, then note what was written: a shard without a note is written again.

        Args:
          content: a digest of what is to be in it, so that a shard of another plan is not taken for this one.
        """
        storage.write_bytes(self.shard_path(name), data)
        written = WrittenShard(content, hashlib.sha256(data).hexdigest(), len(data), num_clips)
        storage.write_text(self.path(_SHARDS, name), json.dumps(dataclasses.asdict(written)))

    def is_written(self, name: str, content: str) -> bool:
        """Whether this shard is there with this content."""
        try:
            return self._read_note(name).content == content
        except FileNotFoundError:
            return False

    def noted(self) -> set[str]:
        """The names of the shards that have a note, of whatever content."""
        return set(storage.list_names(self.path(_SHARDS)))

    def _read_note(self, name: str) -> WrittenShard:
        return WrittenShard(**json.loads(storage.read_text(self.path(_SHARDS, name))))

    def split_info(self, names: Iterable[str], class_counts: Iterable[int]) -> SplitInfo:
        """What was written of a split whose shards have these names.

        Raises:
          DatasetError: a shard was not written.
        """
        try:
            shards = [self._read_note(name) for name in names]
        except FileNotFoundError as error:
            raise DatasetError(f"{self.output} lacks a shard ({error}): run the same command again") from error
        return SplitInfo(
            shard_lengths=tuple(shard.num_clips for shard in shards),
            shard_digests=tuple(shard.digest for shard in shards),
            class_counts=tuple(class_counts),
            num_bytes=sum(shard.num_bytes for shard in shards),
        )

    def clear(self) -> None:
        """Remove everything but the lock, which is held; killed half way, it is finished by the next `held`."""
        storage.write_text(self.path(_CLEARING), "")
        for name in storage.list_names(self.path("")):
            if name not in (_LOCK, _CLEARING):
                storage.remove_tree(self.path(name))
        storage.remove(self.path(_CLEARING))

    def remove(self) -> None:
        storage.remove_tree(self.path(""))


def first_difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first field that differs: its dotted name, its value in `begun` and in `now`; None where none does."""
    begun, now = _flat(json.loads(json.dumps(begun))), _flat(json.loads(json.dumps(now)))
    for name in [*now, *(begun.keys() - now.keys())]:
        if begun.get(name) != now.get(name):
            return name, begun.get(name), now.get(name)
    return None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"split": {"seed": 0}} to {"split.seed": 0}."""
    flat = {}
    for name, value in settings.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
