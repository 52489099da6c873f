"""How every stage begins, refuses and takes up again: OUTPUT/unfinished says which job a directory is being made by.

A command that is started again with the same settings continues where it was interrupted; one with others is refused,
and told which setting differs.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tfdata import storage
from tfdata.spec import DatasetError

FOLDER = "unfinished"
_JOB = "job.json"


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """The folder for a job's own files below the directory `output`; gone when the job is done."""

    output: str

    def path(self, name: str) -> str:
        return storage.join(self.output, FOLDER, name)

    def check_free(self, *, done_marker: str, may_hold: Iterable[str] = ()) -> list[str]:
        """The names in `output`, which must be fresh or unfinished.

        Raises:
          DatasetError: it is complete already, or holds something else.
        """
        names = storage.list_names(self.output)
        if done_marker in names:
            raise DatasetError(f"{self.output} is already complete: choose another --output, or remove it first")
        foreign = sorted(set(names) - set(may_hold)) if FOLDER not in names else []
        if foreign:
            raise DatasetError(
                f"{self.output} is not empty and was not begun by this command (it holds {foreign[0]}): "
                "choose another --output, or empty it first"
            )
        return names

    def begin(self, identity: Mapping[str, Any], *, done_marker: str, may_hold: Iterable[str] = ()) -> None:
        """Begin the job, or take up the one begun here before.

        Args:
          identity: everything that decides the result; nested settings are compared field by field.
          done_marker: the file that says the directory is complete.
          may_hold: other files that may stand in a fresh directory.
        Raises:
          DatasetError: complete already, not empty, a job of another identity, or not writable.
        """
        names = self.check_free(done_marker=done_marker, may_hold=may_hold)
        if FOLDER in names and self.check_same(identity):
            storage.remove_temporaries(self.output)
        try:
            storage.make_directory(self.path(""))
            storage.write_text(self.path(_JOB), json.dumps(identity, indent=2))
        except OSError as error:
            raise DatasetError(
                f"can't write to --output={self.output} ({error.strerror or error}): "
                "choose a directory that you may write to"
            ) from error

    def check_same(self, identity: Mapping[str, Any]) -> bool:
        """Whether a job of this identity was begun here; False where none was.

        Raises:
          DatasetError: one of another identity was; names the first field that differs.
        """
        try:
            begun = _flat(json.loads(storage.read_text(self.path(_JOB))))
        except FileNotFoundError:
            return False  # interrupted before anything was done
        now = _flat(json.loads(json.dumps(identity)))
        for name in [*now, *(begun.keys() - now.keys())]:
            if begun.get(name) != now.get(name):
                raise DatasetError(
                    f"{self.output} holds an unfinished job with {name}={begun.get(name)}, this one has "
                    f"{name}={now.get(name)}: repeat that job's command to finish it, or remove {self.output}"
                )
        return True

    def remove(self) -> None:
        storage.remove_tree(self.path(""))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"split": {"seed": 0}} to {"split.seed": 0}."""
    flat = {}
    for name, value in settings.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
