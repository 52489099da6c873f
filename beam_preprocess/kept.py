"""Keeping the clips that an earlier job made, so that only rejected and new recordings are decoded again.

A shard and a part of an unfinished job are files of the same format, and a record says all there is to know of its
clip. So a finished dataset is turned back into an unfinished job by moving its shards among the parts, under names of
their own. Each step can be repeated: killed in between, the same command goes on.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np

from beam_preprocess.clip_encoder import index_line
from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from beam_preprocess.workspace import Workspace
from tfdata import layout, records, schema, shards, storage
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec, digest
from tfdata.unfinished import first_difference

_SHARDS_TO_KEEP = "shards_to_keep.json"


def reopen(workspace: Workspace, settings: PrepareSettings, recordings: Sequence[Recording]) -> None:
    """Make the finished dataset in the workspace's directory an unfinished job that has all of its clips.

    Raises:
      DatasetError: it was made with other settings (names the field).
    """
    spec = layout.read_spec(workspace.output, LOG_MEL)
    if difference := first_difference(spec.settings, dataclasses.asdict(settings)):
        name, then, now = difference
        raise DatasetError(
            f"{workspace.output} was made with {name}={then}, this command has {name}={now}: repeat its settings to "
            "take "
            "rejects up again, or choose another --output"
        )
    to_keep = [
        dataclasses.asdict(shard) for split in spec.splits for shard in shards.of_split(workspace.output, spec, split)
    ]
    storage.write_text(workspace.path(_SHARDS_TO_KEEP), json.dumps(to_keep))
    storage.remove(storage.join(workspace.output, layout.COMPLETED))  # from here on no reader takes it for whole
    continue_reopening(workspace, recordings)


def continue_reopening(workspace: Workspace, recordings: Sequence[Recording]) -> None:
    """Go on where `reopen` was interrupted; nothing happens where it was not."""
    if not storage.exists(workspace.path(_SHARDS_TO_KEEP)):
        return
    to_keep = [shards.Shard(**shard) for shard in json.loads(storage.read_text(workspace.path(_SHARDS_TO_KEEP)))]
    path = storage.join(workspace.output, layout.SPEC)
    spec = DatasetSpec.from_json(storage.read_text(path), where=path)
    wishes = {recording.name: recording.split for recording in recordings}
    silent = [{"silent": number, "label": label} for label, number in spec.statistics["silent_windows"].items()]
    for index, shard in enumerate(to_keep):
        kept = f"kept-{index:05d}"
        if storage.exists(shard.path):
            lines = _lines(shard, kept, spec, wishes)
            workspace.write_lines(
                kept, [*lines, *([] if index else silent)]
            )  # before the move, so that it can be repeated
            storage.move(shard.path, workspace.records_path(kept))
    storage.remove(workspace.path(_SHARDS_TO_KEEP))


def _lines(shard: shards.Shard, kept: str, spec: DatasetSpec, wishes: Mapping[str, str | None]) -> list[dict]:
    lines, offset = [], 0
    for record in shards.read(shard):
        clip, image = schema.decode_clip(record, spec)
        end = offset + records.framed_size(record)
        line = index_line(clip, image.astype(np.float64), spec.class_names, wishes.get(clip.recording))
        lines.append({**line, "part": kept, "start": offset, "end": end})
        offset = end
    return lines


def keep_decoded(workspace: Workspace, recordings: Sequence[Recording]) -> None:
    """Of a job that ended for too many rejects, keep the clips of recordings that are what they were."""
    now = {recording.name: recording for recording in recordings}
    same = {recording.name for recording in workspace.read_inputs() if now.get(recording.name) == recording}
    for part in sorted(workspace.parts_done()):
        if part.startswith("part-"):
            lines = list(workspace.read_lines([part]))
            kept = f"kept-{digest(lines)[:16]}"  # the same name where this is repeated, another for every part
            if storage.exists(workspace.records_path(part)):
                usable = [{**line, "part": kept} for line in lines if line.get("recording") in same]
                workspace.write_lines(kept, usable)
                storage.move(workspace.records_path(part), workspace.records_path(kept))
            workspace.remove_lines(part)
    workspace.forget_inputs()


def left_to_decode(workspace: Workspace, recordings: Sequence[Recording]) -> list[Recording]:
    """The recordings of which no clip is kept.

    Raises:
      DatasetError: a recording whose clips are kept is gone, or has another label, group, split or other columns.
    """
    kept = collections.defaultdict(list)
    for line in workspace.read_lines(part for part in workspace.parts_done() if part.startswith("kept-")):
        if "recording" in line:
            kept[line["recording"]].append(line)
    now = {recording.name: recording for recording in recordings}
    for name, lines in kept.items():
        recording = now.get(name)
        differs = next(
            (key for key in ("label", "group", "split") if recording and lines[0][key] != getattr(recording, key)), None
        )
        if recording is None or differs:
            what = f"its {differs} was changed" if recording else "it is gone"
            raise DatasetError(
                f"the clips of {name} in {workspace.output} can't be kept, since {what}: bring that back, or make the "
                "dataset anew in another --output"
            )
    return [recording for recording in recordings if recording.name not in kept]
