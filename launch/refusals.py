"""What workers could not do, and why: notes in OUTPUT/unfinished/refused, for whoever started their job."""

import dataclasses
import json
import socket
from collections.abc import Callable
from typing import TypeVar

from tfdata import storage
from tfdata.unfinished import Unfinished

_FOLDER = "refused"
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Refusals:
    """A note for each shard that was refused with a sentence (a ValueError): no other attempt would mend that."""

    unfinished: Unfinished

    def noted(self, shard_name: str, call: Callable[[], Result]) -> Result | None:
        """What `call` returns, or None where it refuses, which is then noted."""
        try:
            return call()
        except ValueError as error:
            note = {"worker": socket.gethostname(), "reason": str(error)}
            storage.write_text(self.unfinished.path(_FOLDER, shard_name), json.dumps(note))
            return None

    def first(self) -> str | None:
        """A sentence about the first shard that was refused; None where none was."""
        names = storage.list_names(self.unfinished.path(_FOLDER))
        if not names:
            return None
        note = json.loads(storage.read_text(self.unfinished.path(_FOLDER, names[0])))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{note['reason']} (on worker {note['worker']}, which left {names[0]} undone{more})"

    def clear(self) -> None:
        """Forget those of an earlier job."""
        storage.remove_tree(self.unfinished.path(_FOLDER))
