"""The files of a prepare job that is not finished yet, in OUTPUT/unfinished, beside those of tfdata/unfinished.py.

    inputs.jsonl       one recording a line, sorted by name; a part is a run of its lines
    part-00000.tfrecord    clips of that part, as they will stand in the shards
    part-00000.jsonl       one line for each clip and each reject; written after the records, so it marks the part done
    kept-00000.*       the same, of clips that an earlier job had made (kept.py)

Parts follow from the sorted inputs alone, so a killed job that is started again skips what is done and ends with the
same bytes, whatever the number of workers.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from tfdata import records, storage
from tfdata.spec import DatasetError
from tfdata.unfinished import Unfinished

# A part ends with whichever comes first: small enough to spread over many workers, large enough to be few files.
MAX_RECORDINGS_PER_PART = 128
MAX_BYTES_PER_PART = 256 << 20
_PARKED = "parked"
_INPUTS = "inputs.jsonl"


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
    """Where one framed record stands in a part."""

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


class Workspace(Unfinished):
    """Names, writes and reads the unfinished files below the dataset directory `output`."""

    def start(self, settings: PrepareSettings, recordings: Sequence[Recording]) -> list[PartRef]:
        """Begin a job in `output`, or take up the one that was begun there with the same settings and inputs.

        Raises:
          DatasetError: as `Unfinished.begin`.
        """
        self.begin(dataclasses.asdict(settings))
        lines = [json.dumps(vars(recording), sort_keys=True) + "\n" for recording in recordings]
        if storage.exists(self.path(_INPUTS)):
            self._check_same_inputs(recordings)
        else:
            storage.write_text(self.path(_INPUTS), "".join(lines))
        return list(_parts(recordings, lines))

    def park(self) -> None:
        """Mark a job that ended before any shard was written, since too many inputs were rejected.

        The same job with a higher limit goes on from here; one with other inputs begins anew.
        """
        storage.write_text(self.path(_PARKED), "")

    def is_parked(self) -> bool:
        return storage.exists(self.path(_PARKED))

    def unpark(self, settings: PrepareSettings, recordings: Sequence[Recording]) -> None:
        """Take a parked job up where settings and inputs are the same; remove it where they are not, mended say.

        Raises:
          DatasetError: they are not the same, but the job holds the clips of a dataset that was finished once.
        """
        try:
            self.check_same(dataclasses.asdict(settings))
            self._check_same_inputs(recordings)
            storage.remove(self.path(_PARKED))
        except DatasetError:
            if any(name.startswith("kept-") for name in self.parts_done()):
                raise
            self.clear()

    def forget_inputs(self) -> None:
        """Let the next start list its inputs anew; the last step of keeping a parked job's clips."""
        storage.remove(self.path(_INPUTS))
        storage.remove(self.path(_PARKED))

    def clear(self) -> None:
        """Remove everything but the lock, which is held."""
        for name in storage.list_names(self.path("")):
            if name != "lock":
                storage.remove_tree(self.path(name))

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
        """The names of the parts that are done, and of those kept from an earlier job."""
        names = storage.list_names(self.path(""))
        return {name[: -len(".jsonl")] for name in names if name[:5] in ("part-", "kept-") and name.endswith(".jsonl")}

    @contextlib.contextmanager
    def write_part(self, name: str) -> Iterator[PartWriter]:
        """A part to write clip by clip; it is done when the block ends."""
        with storage.open_write(self.records_path(name)) as file:
            writer = PartWriter(name, file)
            yield writer
        self.write_lines(name, writer.lines)

    def records_path(self, part: str) -> str:
        return self.path(f"{part}.tfrecord")

    def write_lines(self, part: str, lines: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        storage.write_text(self.path(f"{part}.jsonl"), text)

    def read_lines(self, parts: Iterable[str] | None = None) -> Iterator[dict]:
        """The index lines of these parts, or of all that are done, in order."""
        for name in sorted(self.parts_done() if parts is None else parts):
            yield from map(json.loads, storage.read_text(self.path(f"{name}.jsonl")).splitlines())

    def remove_lines(self, part: str) -> None:
        storage.remove(self.path(f"{part}.jsonl"))

    def read_frames(self, places: Sequence[RecordPlace]) -> list[bytes]:
        """The framed records at these places."""
        return storage.read_ranges(
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
