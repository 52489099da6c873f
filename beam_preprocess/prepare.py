"""Runs a prepare job: recordings in, a complete clip dataset out."""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from tqdm import tqdm

from beam_preprocess import pipeline
from beam_preprocess.plan import InputRejected, Plan, make_plan
from beam_preprocess.recordings import find_recordings
from beam_preprocess.settings import PrepareSettings
from beam_preprocess.splits import check_enough_recordings
from beam_preprocess.workspace import RECORDINGS_PER_PART, Workspace
from tfdata import layout, storage
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec, SplitInfo

# DirectRunner would fetch a binary (Prism) where it has a network; this one is plain Python and runs in this process.
_LOCAL_RUNNER = "FnApiRunner"
_REJECTS_SHOWN = 20


def prepare(
    *,
    output: str,
    settings: PrepareSettings,
    input_path: str | None = None,
    manifest: str | None = None,
    max_reject_fraction: float = 0.1,
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
      beam_args: Beam's own options; without --runner the job runs here, on threads.
      provenance: stored in the spec for people to read.
    Returns:
      the spec of the complete dataset.
    Raises:
      DatasetError: no or wrong input, too many rejects, too few clips of a class, an output that is in use or can't
        be written.
    """
    if not 0 <= max_reject_fraction <= 1:
        raise DatasetError(f"--max_reject_fraction must be within 0 and 1, got {max_reject_fraction:g}")
    recordings = find_recordings(
        input_path=input_path, manifest=manifest, group=settings.group, classes=settings.classes
    )
    class_names = settings.classes or tuple(sorted({r.label for r in recordings if r.label is not None}))
    check_enough_recordings(recordings, settings.split)
    if input_path and not manifest and _is_within(output, input_path):
        raise DatasetError(f"--output={output} lies in --input={input_path}, where it would be taken for a class")
    options = _options(beam_args)
    workspace = Workspace(output)
    parts = workspace.start(settings, recordings)
    plan_of = functools.partial(
        make_plan,
        settings=settings,
        class_names=class_names,
        max_reject_fraction=max_reject_fraction,
        bytes_per_clip=pipeline.array_spec(settings).num_bytes,
    )

    with _Progress(workspace, len(recordings), shown=show_progress):
        job = beam.Pipeline(options=options)
        pipeline.build(job, parts=parts, workspace=workspace, settings=settings, plan=plan_of, class_names=class_names)
        try:
            job.run().wait_until_finish()
        except Exception as error:  # whatever a runner raises, with a worker's trace in it
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DatasetError(
                f"the job stopped ({last[0][:500]}); nothing finished is lost, the same command continues"
            ) from error

    try:
        plan = plan_of(workspace.read_lines(part.index for part in parts))
    except DatasetError as error:
        if not isinstance(error, InputRejected):
            workspace.remove()  # what has to change is the input, so nothing here could be continued
            raise
        workspace.park()
        _write_rejects(output, error.rejects)
        raise DatasetError(f"{error}; {_listed(output, error.rejects)}") from error
    spec = _spec(
        plan,
        settings=settings,
        class_names=class_names,
        num_recordings=len(recordings),
        output=output,
        metadata_columns=tuple(recordings[0].metadata),
        provenance=provenance or {},
    )
    _write_rejects(output, plan.rejects)
    layout.complete(output, spec)
    workspace.remove()
    return spec


def _is_within(path: str, folder: str) -> bool:
    path, folder = storage.absolute(path).rstrip("/"), storage.absolute(folder).rstrip("/")
    return (path + "/").startswith(folder + "/")


def _options(beam_args: Sequence[str]) -> PipelineOptions:
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):  # argparse prints pages of Beam's flags before it exits
            options = PipelineOptions(list(beam_args))
            known = options.get_all_options()
            given = options.get_all_options(retain_unknown_options=True, drop_default=True)
    except SystemExit as error:
        reason = usage.getvalue().strip().splitlines()[-1:]
        raise DatasetError(f"Beam does not take the options after --: {' '.join(reason)}") from error
    unknown = [name for name in given if name not in known]
    if unknown or (beam_args and not beam_args[0].startswith("-")):
        raise DatasetError(f"Beam has no option {'--' + unknown[0] if unknown else beam_args[0]} (given after --)")
    standard = options.view_as(StandardOptions)
    if standard.runner is None:
        standard.runner = _LOCAL_RUNNER
        direct = options.view_as(DirectOptions)
        if not any(arg.startswith("--direct_") for arg in beam_args):
            direct.direct_running_mode = "multi_threading"
            direct.direct_num_workers = 0  # as many as there are cores
    # The DoFns live in importable modules; nothing of __main__ has to travel.
    options.view_as(SetupOptions).save_main_session = False
    return options


class _Progress:
    """A progress bar fed from the finished parts in storage, so that it works on whatever runner does the work."""

    def __init__(self, workspace: Workspace, total: int, *, shown: bool):
        self._workspace = workspace
        self._total = total
        self._shown = shown
        self._bar = tqdm(total=self._total, desc="prepare", unit=" recordings", disable=not shown)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        done = self._workspace.num_done()
        if done and self._shown:
            tqdm.write(
                f"continuing an interrupted job: {done} parts of {RECORDINGS_PER_PART} recordings are done",
                file=sys.stderr,
            )
        self._thread.start()

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self._update()
        self._bar.close()

    def _update(self):
        done = min(self._total, self._workspace.num_done() * RECORDINGS_PER_PART)
        self._bar.update(done - self._bar.n)

    def _watch(self):
        while not self._stop.wait(2.0 if storage.is_remote(self._workspace.output) else 0.3):
            self._update()


def _listed(output: str, rejects: list[dict]) -> str:
    shown = [f"  {line['path']}: {line['stage']}: {line['reason']}" for line in rejects[:_REJECTS_SHOWN]]
    if len(rejects) > _REJECTS_SHOWN:
        shown.append(f"  ... and {len(rejects) - _REJECTS_SHOWN} more")
    return "\n".join([f"all of them are named in {storage.join(output, layout.REJECTS)}:", *shown])


def _write_rejects(output: str, rejects: list[dict]) -> None:
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in rejects)
    storage.write_text(storage.join(output, layout.REJECTS), text)


def _spec(plan: Plan, *, settings, class_names, num_recordings, output, metadata_columns, provenance) -> DatasetSpec:
    splits = {}
    for split, lengths in plan.shard_lengths.items():
        labels = collections.Counter(clip["label"] for id, clip in plan.clips.items() if plan.places[id][0] == split)
        num_bytes = sum(map(storage.size, layout.split_paths(output, LOG_MEL, split, len(lengths))))
        splits[split] = SplitInfo(
            shard_lengths=lengths, num_bytes=num_bytes, class_counts=tuple(labels[name] for name in class_names)
        )
    return DatasetSpec(
        kind=LOG_MEL,
        array=pipeline.array_spec(settings),
        class_names=class_names,
        metadata_columns=metadata_columns,
        settings=dataclasses.asdict(settings),
        statistics=_statistics(plan, settings),
        splits=splits,
        content_digest=plan.content_digest,
        num_recordings=num_recordings - len({r["path"] for r in plan.rejects}),
        num_rejects=len(plan.rejects),
        provenance=provenance,
    )


def _statistics(plan: Plan, settings: PrepareSettings) -> dict:
    """Range, mean and deviation of the log-mel values by split; a model may look at those of "train" only."""
    values_per_clip = math.prod(settings.log_mel.shape)
    statistics = {}
    for split in plan.shard_lengths:
        clips = [clip for id, clip in sorted(plan.clips.items()) if plan.places[id][0] == split]
        count = values_per_clip * len(clips)
        mean = math.fsum(clip["sum"] for clip in clips) / count
        mean_square = math.fsum(clip["sum_of_squares"] for clip in clips) / count
        statistics[split] = {
            "min": min(clip["min"] for clip in clips),
            "max": max(clip["max"] for clip in clips),
            "mean": mean,
            "std": math.sqrt(max(mean_square - mean**2, 0.0)),
        }
    return statistics
