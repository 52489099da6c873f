"""The files of a prepare job that is not finished yet, in OUTPUT/unfinished, beside those of tfdata/unfinished.py.

    inputs.jsonl       one recording a line, sorted by name; a part is a run of its lines
    part-00000.tfrecord    clips of that part, as they will stand in the shards
    part-00000.jsonl       one line for each clip and each reject; written after the records, so it marks the part done
    kept.jsonl         the same of clips kept from the dataset that stands in OUTPUT (kept.py)
    new/               the dataset that is to take its place
    parked             the job ended since too many inputs were rejected

Parts follow from the sorted inputs alone, so a killed job that is started again skips what is done and ends with the
same bytes, whatever the number of workers.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from beam_preprocess.recordings import Recording
from tfdata import bulk_reads, records, storage
from tfdata.spec import DatasetError
from tfdata.unfinished import JOB, Unfinished

# A part ends with whichever comes first: small enough to spread over many workers, large enough to be few files.
MAX_RECORDINGS_PER_PART = 128
MAX_BYTES_PER_PART = 256 << 20
NEW = "new"
_KEPT = "kept"
_PARKED = "parked"
_INPUTS = "inputs.jsonl"
_NOT_IN_PARTS = ("split", "num_shards")  # settings that decoded clips don't depend on


@dataclasses.dataclass(frozen=True)
class PartRef:
    """One part of the inputs: its number, where its lines stand in inputs.jsonl (bytes), and how many they are."""

    index: int
    start: int
    end: int
    num_recordings: int

    @property
    def name(self) -> str:
        return f"part-{self.index:05d}"


@dataclasses.dataclass(frozen=True)
class RecordPlace:
    """Where one framed record stands: in a part, or in a shard of the dataset that is kept."""

    part: str
    start: int
    end: int


class PartWriter:
    """Takes the clips of one part as they come; a recording's clips stand only once it is kept."""

    def __init__(self, name: str, file: BinaryIO):
        self._name = name
        self._file = file
        self._offset = 0
        self._pending: list[dict] = []
        self.lines: list[dict] = []

    def add(self, record: bytes, line: dict) -> None:
        framed = records.frame([record])
        self._file.write(framed)
        self._pending.append({**line, "part": self._name, "start": self._offset, "end": self._offset + len(framed)})
        self._offset += len(framed)

    def keep(self, *more_lines: dict) -> None:
        """Keep what was added since the last call."""
        self.lines += [*self._pending, *more_lines]
        self._pending = []

    def drop(self, reject_line: dict) -> None:
        """Leave out what was added since the last call: its bytes stay, but nothing points to them."""
        self._pending = []
        self.lines.append(reject_line)


@dataclasses.dataclass(frozen=True)
class Workspace(Unfinished):
    """Names, writes and reads the unfinished files below the dataset directory `output`.

    Attributes:
      beside: whether the dataset is made beside one that stands in `output`, in unfinished/new.
    """

    beside: bool = False

    @property
    def target(self) -> str:
        """The directory where the dataset is made."""
        return self.path(NEW) if self.beside else self.output

    def shard_path(self, name: str) -> str:
        return storage.join(self.target, name)

    def start(self, identity: Mapping[str, Any], recordings: Sequence[Recording]) -> list[PartRef]:
        """Begin a job, or take up the one that was begun here with the same settings and inputs.

        Raises:
          DatasetError: as `Unfinished.begin`; or an input was changed, came or went.
        """
        self.begin(identity)
        lines = [json.dumps(vars(recording), sort_keys=True) + "\n" for recording in recordings]
        if storage.exists(self.path(_INPUTS)):
            self._check_same_inputs(recordings)
        else:
            storage.write_text(self.path(_INPUTS), "".join(lines))
        return list(_parts(recordings, lines))

    def park(self) -> None:
        """Mark a job that ended with a message about its inputs or its splits: only those may change."""
        storage.write_text(self.path(_PARKED), "")

    def unpark(self, identity: Mapping[str, Any], recordings: Sequence[Recording]) -> str | None:
        """Take a parked job up: with other splits as it is, with other inputs anew; nothing where none is parked.

        Returns:
          why it begins anew, if it does.
        Raises:
          DatasetError: other settings.
        """
        if not storage.exists(self.path(_PARKED)):
            return None
        begun = json.loads(storage.read_text(self.path(JOB)))
        self.check_same({**identity, **{name: begun[name] for name in _NOT_IN_PARTS}})
        try:
            self._check_same_inputs(recordings)
        except DatasetError as error:
            self.clear()
            return str(error).split(": ")[0]
        storage.write_text(self.path(JOB), json.dumps(identity))
        storage.remove(self.path(_PARKED))
        return None

    def restart_unless_same(self, identity: Mapping[str, Any], recordings: Sequence[Recording]) -> None:
        """Where anything else was begun here, begin anew: of a job beside a whole dataset nothing is lost by that."""
        try:
            if self.check_same(identity) and storage.exists(self.path(_INPUTS)):
                self._check_same_inputs(recordings)
                return
        except DatasetError:
            pass
        self.clear()

    def _check_same_inputs(self, recordings: Sequence[Recording]) -> None:
        begun = {recording.name: recording for recording in self.read_inputs()}
        now = {recording.name: recording for recording in recordings}
        for name in sorted(begun.keys() | now.keys()):
            if begun.get(name) != now.get(name):
                what = "is new" if name not in begun else "is gone" if name not in now else "was changed"
                raise DatasetError(
                    f"{self.output} holds an unfinished job, and since it was begun {name} {what}: bring that back to "
                    f"finish it, or remove {self.output} to begin anew"
                )

    def read_inputs(self, part: PartRef | None = None) -> list[Recording]:
        """The recordings of a part, or all of them."""
        path = self.path(_INPUTS)
        data = storage.read_range(path, part.start, part.end) if part else storage.read_bytes(path)
        return [Recording(**json.loads(line)) for line in data.decode().splitlines()]

    def is_done(self, part: PartRef) -> bool:
        return storage.exists(self.path(f"{part.name}.jsonl"))

    def parts_done(self) -> set[str]:
        """The names of the parts that are done, and of what is kept."""
        names = storage.list_names(self.path(""))
        return {
            name[: -len(".jsonl")] for name in names if name.startswith(("part-", _KEPT)) and name.endswith(".jsonl")
        }

    @contextlib.contextmanager
    def write_part(self, name: str) -> Iterator[PartWriter]:
        """A part to write clip by clip; it is done when the block ends."""
        with storage.open_write(self.records_path(name)) as file:
            writer = PartWriter(name, file)
            yield writer
        self.write_lines(name, writer.lines)

    def records_path(self, part: str) -> str:
        return self.path(f"{part}.tfrecord") if part.startswith("part-") else storage.join(self.output, part)

    def write_lines(self, part: str, lines: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        storage.write_text(self.path(f"{part}.jsonl"), text)

    def write_kept(self, lines: Iterable[dict[str, Any]]) -> None:
        self.write_lines(_KEPT, lines)

    def read_lines(self) -> Iterator[dict]:
        """The index lines of all that is done, in order."""
        paths = [self.path(f"{name}.jsonl") for name in sorted(self.parts_done())]
        for data in bulk_reads.read_many(paths):
            yield from map(json.loads, data.decode().splitlines())

    def read_frames(self, places: Sequence[RecordPlace]) -> list[bytes]:
        """The framed records at these places."""
        return bulk_reads.read_ranges(
            [self.records_path(place.part) for place in places],
            [place.start for place in places],
            [place.end for place in places],
        )


def _parts(recordings: Sequence[Recording], lines: Sequence[str]) -> Iterator[PartRef]:
    index = start = end = count = num_bytes = 0
    for recording, line in zip(recordings, lines):
        if count == MAX_RECORDINGS_PER_PART or (count and num_bytes + recording.num_bytes > MAX_BYTES_PER_PART):
            yield PartRef(index, start, end, count)
            index, start, count, num_bytes = index + 1, end, 0, 0
        end += len(line)  # ASCII: one byte for each character
        count += 1
        num_bytes += recording.num_bytes
    if count:
        yield PartRef(index, start, end, count)
