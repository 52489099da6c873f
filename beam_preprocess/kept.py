"""Taking a finished dataset up again: its clips are kept, and only rejected and new recordings are decoded.

The dataset stays as it is, and complete, while that is done: the job's plan takes kept clips out of the present shards
by byte ranges, as it takes others out of parts, and the new dataset is made beside it, in unfinished/new. Only when
that is complete the two are exchanged; an exchange that was interrupted is finished by the next command.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_preprocess.clip_encoder import index_line
from beam_preprocess.recordings import Recording
from beam_preprocess.workspace import NEW, Workspace
from tfdata import layout, records, schema, shards, storage
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec
from tfdata.unfinished import first_difference

REPEAT = "repeat its settings to take rejects up again, or choose another --output"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The clips of a finished dataset that need not be decoded again: index lines, and the recordings they cover."""

    fingerprint: str
    lines: list[dict]
    recordings: frozenset[str]


def keep(output: str, identity: Mapping[str, Any], recordings: Sequence[Recording]) -> Kept:
    """Read what can be kept of the dataset in `output`; changes nothing.

    A recording that was rejected, if only in part, is not kept.

    Raises:
      DatasetError: it was made with other settings (names the field), a shard is damaged, or a recording whose clips it
        has is gone or has another label, group or other columns.
    """
    spec = layout.read_spec(output, LOG_MEL)
    check_made_with(spec, identity, output, remedy=REPEAT)
    rejected = {line["path"] for line in layout.read_rejects(output)}
    by_name = {recording.name: recording for recording in recordings}
    lines, names = [], set()
    for split in spec.splits:
        for shard in shards.of_split(output, spec, split):
            end = 0
            for record in shards.read(shard):
                start, end = end, end + records.framed_size(record)
                clip, image = schema.decode_clip(record, spec)
                if clip.recording in rejected:
                    continue
                recording = by_name.get(clip.recording)
                if what := difference(clip, recording, spec):
                    raise DatasetError(
                        f"the clips of {clip.recording} in {output} can't be kept, since {what}: bring that back, or "
                        "make the dataset anew in another --output"
                    )
                line = index_line(clip, image.astype(np.float64), spec.class_names, recording.split)
                lines.append({**line, "part": shard.name, "start": start, "end": end})
                names.add(clip.recording)
    silent = spec.statistics["silent_windows"].items()
    lines += [{"silent": number, "label": label} for label, number in silent]
    return Kept(spec.fingerprint, lines, frozenset(names))


def check_made_with(spec: DatasetSpec, identity: Mapping[str, Any], output: str, *, remedy: str) -> None:
    """Check that a dataset is what a command with these settings, classes and columns makes.

    Args:
      remedy: what to do where it is not.
    Raises:
      DatasetError: it is not; names the first field that differs.
    """
    made_with = {**spec.settings, "class_names": spec.class_names, "metadata_columns": spec.metadata_columns}
    if difference := first_difference(made_with, identity):
        name, then, now = difference
        raise DatasetError(f"{output} was made with {name}={then}, this command has {name}={now}: {remedy}")


def difference(clip: schema.Clip, recording: Recording | None, spec: DatasetSpec) -> str | None:
    """In what the recording of a clip is another one now: "its label was 'flute' and is 'oboe'"; None where in nothing.

    Args:
      recording: of that name; None where there is none.
    """
    if recording is None:
        return "it is gone"
    if recording.label != spec.class_names[clip.label]:
        return f"its label was {spec.class_names[clip.label]!r} and is {recording.label!r}"
    if recording.group != clip.group:
        return f"its group was {clip.group!r} and is {recording.group!r}"
    for column, value in clip.metadata.items():
        if recording.metadata[column] != value:
            return f"its {column} was {value!r} and is {recording.metadata[column]!r}"
    return None


def exchange(workspace: Workspace) -> DatasetSpec | None:
    """Put the complete dataset in unfinished/new in the place of the present one; None where there is none.

    Each step can be repeated, so that an interrupted exchange is finished by the next.
    """
    new, output = workspace.path(NEW), workspace.output
    if not layout.is_complete(new):
        return None
    # The spec is moved last but one: until then it is here, and afterwards all else is in place.
    where = new if storage.exists(storage.join(new, layout.SPEC)) else output
    path = storage.join(where, layout.SPEC)
    spec = DatasetSpec.from_json(storage.read_text(path), where=path)
    storage.remove(storage.join(output, layout.COMPLETED))
    last = [layout.SPEC, layout.COMPLETED]
    for name in [name for name in storage.list_names(new) if name not in last] + last:
        if storage.exists(storage.join(new, name)):
            if name == layout.COMPLETED:
                layout.remove_stray_shards(output, spec)
            storage.move(storage.join(new, name), storage.join(output, name))
    workspace.remove()
    return spec
