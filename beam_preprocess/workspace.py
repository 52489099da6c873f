"""The files of a prepare job that is not finished yet, in OUTPUT/unfinished.

    inputs.jsonl       one recording a line, sorted by name; a part is RECORDINGS_PER_PART lines of it
    part-00000.tfrecord    clips of that part, as they will stand in the shards
    part-00000.jsonl       one line for each clip and each reject; written after the records, so it marks the part done

Parts follow from the sorted inputs alone, so a killed job that is started again skips what is done and ends with the
same bytes, whatever the number of workers.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from tfdata import layout, records, storage
from tfdata.spec import DatasetError
from tfdata.unfinished import Unfinished

RECORDINGS_PER_PART = 128
_PARKED = "parked"


@dataclasses.dataclass(frozen=True)
class PartRef:
    """One part of the inputs: its number and where its lines stand in inputs.jsonl (bytes)."""

    index: int
    start: int
    end: int


class Workspace(Unfinished):
    """Names, writes and reads the unfinished files below the dataset directory `output`."""

    def start(self, settings: PrepareSettings, recordings: Sequence[Recording]) -> list[PartRef]:
        """Begin a job in `output`, or take up the one that was begun there with the same settings and inputs.

        Raises:
          DatasetError: as `Unfinished.begin`.
        """
        lines = [
            (json.dumps(dataclasses.asdict(recording), sort_keys=True) + "\n").encode() for recording in recordings
        ]
        inputs = b"".join(lines)
        identity = dataclasses.asdict(settings)
        if storage.exists(self.path(_PARKED)):
            try:
                self.check_same(identity)
                self._check_same_inputs(recordings)
                storage.remove_tree(self.path(_PARKED))
            except DatasetError:  # mended inputs, say: begin anew
                self.remove()
        self.begin(identity, done_marker=layout.COMPLETED, may_hold=[layout.REJECTS])
        if storage.exists(self.path("inputs.jsonl")):
            self._check_same_inputs(recordings)
        else:
            storage.write_bytes(self.path("inputs.jsonl"), inputs)
        parts, start = [], 0
        for index, first in enumerate(range(0, len(lines), RECORDINGS_PER_PART)):
            end = start + sum(map(len, lines[first : first + RECORDINGS_PER_PART]))
            parts.append(PartRef(index, start, end))
            start = end
        return parts

    def park(self) -> None:
        """Keep what is decoded of a job that ended before any shard was written, since too many inputs were rejected.

        The same job with a higher limit goes on from here; one with other inputs begins anew.
        """
        storage.write_text(self.path(_PARKED), "")

    def _check_same_inputs(self, recordings: Sequence[Recording]) -> None:
        begun = {recording.name: recording for recording in _parse(storage.read_bytes(self.path("inputs.jsonl")))}
        now = {recording.name: recording for recording in recordings}
        for name in sorted(begun.keys() | now.keys()):
            if begun.get(name) != now.get(name):
                what = "is new" if name not in begun else "is gone" if name not in now else "was changed"
                raise DatasetError(
                    f"{self.output} holds an unfinished job, and since it was begun {name} {what}: bring that back to "
                    f"finish it, or remove {self.output} to begin anew"
                )

    def read_inputs(self, part: PartRef) -> list[Recording]:
        return _parse(storage.read_range(self.path("inputs.jsonl"), part.start, part.end))

    def _records_path(self, index: int) -> str:
        return self.path(f"part-{index:05d}.tfrecord")

    def _index_path(self, index: int) -> str:
        return self.path(f"part-{index:05d}.jsonl")

    def is_done(self, index: int) -> bool:
        return storage.exists(self._index_path(index))

    def num_done(self) -> int:
        """How many parts are done."""
        names = storage.list_names(self.path(""))
        return sum(name.startswith("part-") and name.endswith(".jsonl") for name in names)

    def write_part(self, index: int, examples: list[bytes], lines: list[dict]) -> None:
        storage.write_bytes(self._records_path(index), records.frame(examples))
        storage.write_text(self._index_path(index), "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))

    def read_lines(self, indexes: Iterable[int]) -> list[dict]:
        """The index lines of several parts, in order."""
        return [
            json.loads(line)
            for index in sorted(indexes)
            for line in storage.read_text(self._index_path(index)).splitlines()
        ]

    def read_records(self, index: int) -> Iterator[bytes]:
        path = self._records_path(index)
        return records.unframe(storage.read_bytes(path), where=path)


def _parse(lines: bytes) -> list[Recording]:
    return [Recording(**json.loads(line)) for line in lines.decode().splitlines()]
