"""The files of a prepare job that is not finished yet, in OUTPUT/unfinished, and how a repeated command takes them up.

    job.json           what the job was started with
    inputs.jsonl       one recording a line, sorted by name; a part is RECORDINGS_PER_PART lines of it
    part-00000.tfrecord    clips of that part, as they will stand in the shards
    part-00000.jsonl       one line for each clip and each reject; written after the records, so it marks the part done

Parts follow from the sorted inputs alone, so a killed job that is started again skips what is done and ends with the
same bytes, whatever the number of workers.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from tfdata import layout, records, storage
from tfdata.spec import DatasetError

RECORDINGS_PER_PART = 128
_FOLDER = "unfinished"


@dataclasses.dataclass(frozen=True)
class PartRef:
    """One part of the inputs: its number and where its lines stand in inputs.jsonl (bytes)."""

    index: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Names and reads the unfinished files below the dataset directory `output`."""

    output: str

    def path(self, name: str) -> str:
        return storage.join(self.output, _FOLDER, name)

    def records_path(self, index: int) -> str:
        return self.path(f"part-{index:05d}.tfrecord")

    def index_path(self, index: int) -> str:
        return self.path(f"part-{index:05d}.jsonl")

    def start(self, settings: PrepareSettings, recordings: Sequence[Recording]) -> list[PartRef]:
        """Begin a job in `output`, or take up the one that was begun there with the same settings and inputs.

        Raises:
          DatasetError: the directory is complete, holds something else, or holds a job of other settings or inputs.
        """
        if layout.is_complete(self.output):
            raise DatasetError(
                f"{self.output} already holds a complete dataset: choose another --output, or remove it first"
            )
        lines = [
            (json.dumps(dataclasses.asdict(recording), sort_keys=True) + "\n").encode() for recording in recordings
        ]
        job = {
            "settings": dataclasses.asdict(settings),
            "num_recordings": len(recordings),
            "inputs_sha256": hashlib.sha256(b"".join(lines)).hexdigest(),
        }
        names = storage.list_names(self.output)
        if _FOLDER in names:
            self._check_same(job)
        elif set(names) - {layout.REJECTS}:
            raise DatasetError(
                f"{self.output} is not empty and not a dataset of ours (it holds {names[0]}): "
                "choose another --output, or empty it first"
            )
        try:
            storage.make_directory(self.path(""))
            storage.write_bytes(self.path("inputs.jsonl"), b"".join(lines))
            storage.write_text(self.path("job.json"), json.dumps(job, indent=2))
        except OSError as error:
            raise DatasetError(
                f"can't write to --output={self.output} ({error.strerror or error}): "
                "choose a directory that you may write to"
            ) from error
        parts, start = [], 0
        for index, first in enumerate(range(0, len(lines), RECORDINGS_PER_PART)):
            end = start + sum(map(len, lines[first : first + RECORDINGS_PER_PART]))
            parts.append(PartRef(index, start, end))
            start = end
        return parts

    def _check_same(self, job: dict) -> None:
        try:
            begun = json.loads(storage.read_text(self.path("job.json")))
        except FileNotFoundError:
            return  # killed before anything was done
        remedy = f"run that job's command to finish it, or remove {self.path('')} to begin anew"
        old, new = _flat(begun["settings"]), _flat(job["settings"])
        for name in sorted(old.keys() | new.keys()):
            if _as_json(old.get(name)) != _as_json(new.get(name)):
                raise DatasetError(
                    f"{self.output} holds an unfinished job with {name}={old.get(name)}, "
                    f"this one has {name}={new.get(name)}: {remedy}"
                )
        if begun["inputs_sha256"] != job["inputs_sha256"]:
            raise DatasetError(
                f"{self.output} holds an unfinished job over other inputs ({begun['num_recordings']} recordings, "
                f"now {job['num_recordings']}): {remedy}"
            )

    def read_inputs(self, part: PartRef) -> list[Recording]:
        text = storage.read_range(self.path("inputs.jsonl"), part.start, part.end).decode()
        return [Recording(**json.loads(line)) for line in text.splitlines()]

    def done_parts(self) -> set[int]:
        """Numbers of the parts whose index stands."""
        return {
            int(name.removeprefix("part-").removesuffix(".jsonl"))
            for name in storage.list_names(self.path(""))
            if name.startswith("part-") and name.endswith(".jsonl")
        }

    def write_part(self, index: int, examples: list[bytes], lines: list[dict]) -> None:
        storage.write_bytes(self.records_path(index), records.frame(examples))
        storage.write_text(self.index_path(index), "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))

    def read_index(self, index: int) -> list[dict]:
        return [json.loads(line) for line in storage.read_text(self.index_path(index)).splitlines()]

    def read_all_lines(self, indexes: Iterable[int]) -> list[dict]:
        return [line for index in sorted(indexes) for line in self.read_index(index)]

    def read_records(self, index: int) -> Iterator[bytes]:
        path = self.records_path(index)
        return records.unframe(storage.read_bytes(path), where=path)

    def remove(self) -> None:
        storage.remove_tree(self.path(""))


def _flat(settings: dict, prefix: str = "") -> dict:
    """{"split": {"seed": 0}} to {"split.seed": 0}."""
    flat = {}
    for name, value in settings.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _as_json(value) -> str:
    return json.dumps(value)
