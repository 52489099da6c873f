"""Prepares a dataset: recordings in, a complete clip dataset out."""

import collections
import dataclasses
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from beam_preprocess import beam_job, kept, pipeline
from beam_preprocess import leak_audit as leak_audits
from beam_preprocess.clip_encoder import array_spec
from beam_preprocess.clip_sample import read_clips
from beam_preprocess.plan import InputRejected, Plan, make_plan
from beam_preprocess.recordings import Recording, find_recordings
from beam_preprocess.settings import PrepareSettings
from beam_preprocess.splits import check_enough_recordings
from beam_preprocess.statistics import statistics
from beam_preprocess.workspace import PartRef, Workspace
from tfdata import layout, storage
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec

_REJECTS_SHOWN = 20
# benchmarks/prepare.py measures threads and processes; from so many recordings on it is processes.
_RECORDINGS_FOR_PROCESSES, _BYTES_FOR_PROCESSES = 20_000, 4 << 30


def prepare(
    *,
    output: str,
    settings: PrepareSettings,
    input_path: str | None = None,
    manifest: str | None = None,
    max_reject_fraction: float = 0.1,
    decode_timeout_s: float = 60.0,
    retry_rejects: bool = False,
    leak_audit: bool = True,
    beam_args: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> DatasetSpec:
    """Turn recordings into a clip dataset.

    Args:
      output: dataset directory to make, local or gs://; the same command continues one that was interrupted.
      settings: see PrepareSettings.
      input_path, manifest: see `find_recordings`.
      max_reject_fraction: the job fails where more than this share of the inputs can't be used.
      decode_timeout_s: a recording that gives no clip for so long is rejected.
      retry_rejects: keep the clips that `output` has, decode what was rejected and what is new, and divide them anew.
      leak_audit: look for near-copies across splits, and store what was found in the spec (leak_audit.py).
      beam_args: Beam's own options; without --runner the job runs here, a worker for each core.
      provenance: stored in the spec for people to read.
    Returns:
      the spec of the complete dataset.
    Raises:
      DatasetError: no or wrong input, too many rejects, too few clips of a class, an output that is in use or can't
        be written, a job that did not end well.
    """
    if not 0 <= max_reject_fraction <= 1:
        raise DatasetError(f"--max_reject_fraction must be within 0 and 1, got {max_reject_fraction:g}")
    if not decode_timeout_s > 0:
        raise DatasetError(f"--decode_timeout_s must be above 0, got {decode_timeout_s:g}")
    # Workers may run elsewhere: no path depends on where the command was given.
    output, input_path, manifest = (path and storage.absolute(path) for path in (output, input_path, manifest))
    recordings = find_recordings(
        input_path=input_path, manifest=manifest, group=settings.group, classes=settings.classes
    )
    identity = job_identity(settings, recordings)
    class_names, metadata_columns = identity["class_names"], identity["metadata_columns"]
    check_enough_recordings(recordings, settings.split)
    if input_path and not manifest and _is_within(output, input_path):
        raise DatasetError(f"--output={output} lies in --input={input_path}, where it would be taken for a class")
    several = settings.windows.max_windows != 1
    job = beam_job.pipeline_with(beam_args, in_processes=_are_many(recordings, several_clips_each=several))
    with Workspace(output).held(done_marker=layout.COMPLETED, may_hold=[layout.REJECTS], or_complete=retry_rejects):
        if spec := kept.exchange(Workspace(output)):  # all that was left of a job to be done
            kept.check_made_with(spec, identity, output, remedy=kept.REPEAT)
            return spec
        workspace, parts = _begin(output, identity, recordings, show_notes=show_progress)
        plan_of = functools.partial(
            _plan,
            workspace,
            settings=settings,
            class_names=class_names,
            max_reject_fraction=max_reject_fraction,
            bytes_per_clip=array_spec(settings).num_bytes,
        )
        pipeline.build(
            job,
            parts=parts,
            workspace=workspace,
            settings=settings,
            plan=plan_of,
            class_names=class_names,
            timeout_s=decode_timeout_s,
        )
        work = beam_job.Work(
            name="prepare",
            pieces="parts",
            unit="recordings",
            sizes={part.name: part.num_recordings for part in parts},
            done=workspace.parts_done,
            directory=output,
        )
        beam_job.run(job, work=work, show_progress=show_progress)
        plan = _checked(plan_of, workspace)
        spec = _spec(
            plan,
            settings=settings,
            class_names=class_names,
            workspace=workspace,
            metadata_columns=metadata_columns,
            provenance=provenance or {},
        )
        if leak_audit:
            spec = dataclasses.replace(spec, leak_audit=_audit(workspace.target, spec, power=settings.log_mel.power))
        layout.remove_stray_shards(workspace.target, spec)
        _write_rejects(workspace.target, plan.rejects)
        layout.complete(workspace.target, spec)
        if workspace.beside:
            kept.exchange(workspace)
        else:
            workspace.remove()
    return spec


def job_identity(settings: PrepareSettings, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Every setting that decides a dataset's bytes, with the classes and columns that the recordings have."""
    return {
        **dataclasses.asdict(settings),
        "class_names": settings.classes or tuple(sorted({r.label for r in recordings if r.label is not None})),
        "metadata_columns": tuple(recordings[0].metadata),
    }


def _begin(
    output: str, identity: Mapping[str, Any], recordings: list[Recording], *, show_notes: bool
) -> tuple[Workspace, list[PartRef]]:
    """The workspace, and the parts that are to be decoded in it: of a finished dataset only what it does not have."""
    if layout.is_complete(output):
        workspace = Workspace(output, beside=True)
        dataset = kept.keep(output, identity, recordings)
        identity = {**identity, "instead_of": dataset.fingerprint}
        recordings = [recording for recording in recordings if recording.name not in dataset.recordings]
        workspace.restart_unless_same(identity, recordings)
        parts = workspace.start(identity, recordings)
        workspace.write_kept(dataset.lines)
        return workspace, parts
    workspace = Workspace(output)
    anew = workspace.unpark(identity, recordings)
    if anew and show_notes:
        tqdm.write(f"{anew}: what was decoded is dropped, and the job begins anew", file=sys.stderr)
    return workspace, workspace.start(identity, recordings)


def _plan(workspace: Workspace, **arguments) -> Plan:
    """The plan of what is decoded; made on a worker, and where the job was started."""
    return make_plan(workspace.read_lines(), **arguments)


def _checked(plan_of, workspace: Workspace) -> Plan:
    """The plan, or why there is none."""
    try:
        return plan_of()
    except DatasetError as error:
        if not workspace.beside:
            workspace.park()
        if not isinstance(error, InputRejected):
            raise
        where = workspace.path("") if workspace.beside else workspace.output
        _write_rejects(where, error.rejects)
        raise DatasetError(f"{error}; {_listed(where, error.rejects)}") from error


def _audit(directory: str, spec: DatasetSpec, *, power: float) -> dict:
    def most(split: str) -> int:
        clips, num_bytes = leak_audits.MAX_TRAIN if split == "train" else leak_audits.MAX_HELDOUT
        return max(1, min(clips, num_bytes // spec.array.num_bytes))

    clips = {split: read_clips(directory, spec, split, max_clips=most(split)) for split in spec.splits}
    num_clips = {name: split.num_clips for name, split in spec.splits.items()}
    return leak_audits.leak_audit(clips, num_clips=num_clips, power=power)


def _are_many(recordings: Sequence[Recording], *, several_clips_each: bool) -> bool:
    """Whether there is so much to decode that processes are worth their start."""
    long = several_clips_each and sum(each.num_bytes for each in recordings) >= _BYTES_FOR_PROCESSES
    return long or len(recordings) >= _RECORDINGS_FOR_PROCESSES


def _is_within(path: str, folder: str) -> bool:
    return (path.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


def _listed(output: str, rejects: list[dict]) -> str:
    shown = [f"  {line['path']}: {line['stage']}: {line['reason']}" for line in rejects[:_REJECTS_SHOWN]]
    if len(rejects) > _REJECTS_SHOWN:
        shown.append(f"  ... and {len(rejects) - _REJECTS_SHOWN} more")
    return "\n".join([f"all of them are named in {storage.join(output, layout.REJECTS)}:", *shown])


def _write_rejects(output: str, rejects: list[dict]) -> None:
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in rejects)
    storage.write_text(storage.join(output, layout.REJECTS), text)


def _spec(plan: Plan, *, settings, class_names, workspace: Workspace, metadata_columns, provenance) -> DatasetSpec:
    splits = {}
    for split, shards in plan.shards.items():
        labels = collections.Counter(plan.clips[id]["label"] for id in plan.ids(split))
        names = layout.shard_names(LOG_MEL, split, len(shards))
        splits[split] = workspace.split_info(names, [labels[name] for name in class_names])
    return DatasetSpec(
        kind=LOG_MEL,
        array=array_spec(settings),
        class_names=class_names,
        metadata_columns=metadata_columns,
        settings=dataclasses.asdict(settings),
        statistics=statistics(plan, class_names, settings.log_mel),
        splits=splits,
        content_digest=plan.content_digest,
        num_recordings=len({clip["recording"] for clip in plan.clips.values()}),
        num_rejects=len(plan.rejects),
        provenance=provenance,
    )
