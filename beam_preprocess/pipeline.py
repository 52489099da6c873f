"""The Beam graph of a prepare job: decode parts, plan the shards, write them. The graph only; prepare.py runs it.

    parts ──▶ DecodePart ──▶ (all parts done) ──▶ PlanShards ──▶ WriteShard

Parts are files: a shard picks its records out of them, so that no record travels through the runner, and a worker holds
one shard at a time. A worker imports what decoding needs and nothing of TensorFlow.
"""

from collections.abc import Callable

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_preprocess import audio, time_limit
from beam_preprocess.clip_encoder import ClipEncoder
from beam_preprocess.log_mel import Filters
from beam_preprocess.plan import Plan
from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from beam_preprocess.workspace import PartRef, RecordPlace, Workspace
from tfdata import records, schema
from tfdata.spec import DatasetError, digest


def build(
    pipeline: beam.Pipeline,
    *,
    parts: list[PartRef],
    workspace: Workspace,
    settings: PrepareSettings,
    plan: Callable[[], Plan],
    class_names: tuple[str, ...],
    timeout_s: float,
):
    """Add the whole job to `pipeline`; returns the PCollection of the names of the shards it wrote."""
    decoded = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "SpreadParts" >> beam.Reshuffle()
        | "DecodePart" >> beam.ParDo(DecodePart(workspace, settings, class_names, timeout_s))
    )
    return (
        pipeline
        | "Once" >> beam.Create([None])
        | "PlanShards" >> beam.ParDo(PlanShards(workspace, plan), beam.pvalue.AsList(decoded))
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShard" >> beam.ParDo(WriteShard(workspace))
    )


class DecodePart(beam.DoFn):
    """Decodes the recordings of one part, writes its clips and its index, yields its number. Done parts are skipped."""

    def __init__(self, workspace: Workspace, settings: PrepareSettings, class_names: tuple[str, ...], timeout_s: float):
        self._workspace = workspace
        self._settings = settings
        self._class_names = class_names
        self._filters = Filters.of(settings.log_mel)
        self._timeout_s = timeout_s
        self._clips = Metrics.counter("prepare", "clips")
        self._rejects = Metrics.counter("prepare", "rejects")

    def process(self, part: PartRef):
        if not self._workspace.is_done(part):
            with self._workspace.write_part(part.name) as writer:
                self._decode(self._workspace.read_inputs(part), writer)
        yield part.index

    def _decode(self, recordings, writer) -> None:
        num_clips = num_silent = 0
        results = time_limit.each(
            recordings,
            lambda: ClipEncoder(self._settings, self._class_names, self._filters),
            timeout_s=self._timeout_s,
        )
        for recording, result in results:
            if result is None:
                num_silent += 1
            elif not isinstance(result, time_limit.End):
                num_clips += 1
                writer.add(result.record, result.line)
            elif result.error is None:
                writer.keep(*([{"silent": num_silent, "label": recording.label}] if num_silent else []))
                self._clips.inc(num_clips)
                num_clips = num_silent = 0
            elif isinstance(result.error, OSError):  # of an object store, not of the file: the runner tries again
                raise result.error
            else:
                writer.drop(self._reject_line(recording, result.error))
                self._rejects.inc()
                num_clips = num_silent = 0

    def _reject_line(self, recording: Recording, error: Exception) -> dict:
        """Whatever a file does to us, it is rejected by name and the others go on."""
        if isinstance(error, time_limit.TimedOut):
            reject = audio.Reject("decode", f"gave nothing for {self._timeout_s:g} s (--decode_timeout_s)")
        elif isinstance(error, UnicodeEncodeError):
            reject = audio.Reject("list", "the name is not valid UTF-8: rename the file")
        elif not isinstance(error, audio.Reject):
            reject = audio.Reject("decode", f"{type(error).__name__}: {error}")
        else:
            reject = error
        hangs = isinstance(error, time_limit.TimedOut)
        return {
            "path": recording.name,
            "label": recording.label,
            "stage": reject.stage,
            "reason": reject.reason,
            "content_hash": None if hangs else audio.file_hash(recording.path),
        }


class PlanShards(beam.DoFn):
    """Runs once, after all parts: yields each shard that is not written yet and where its records stand.

    Where no plan can be made (too few clips of a class, say) it yields nothing: the same plan is made again where the
    job was started, and fails there with its message instead of a worker's trace.
    """

    def __init__(self, workspace: Workspace, make_plan: Callable[[], Plan]):
        self._workspace = workspace
        self._make_plan = make_plan

    def process(self, _, done_parts: list[int]):
        try:
            plan = self._make_plan()
        except DatasetError:
            return
        for name, ids in plan.named_shards().items():
            folds = [plan.fold(id) for id in ids if plan.folds]
            content = digest([[plan.clips[id]["content_hash"], id] for id in ids] + folds)
            if not self._workspace.is_written(name, content):
                yield name, content, [plan.place(id) for id in ids], folds


class WriteShard(beam.DoFn):
    """(name, digest of its content, places of its records, their folds if any) to the shard's file; yields its name."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace

    def process(self, element: tuple[str, str, list[RecordPlace], list[int]]):
        name, content, places, folds = element
        frames = self._workspace.read_frames(places)
        # Unframed for their checksums: a part damaged on disk must not become a shard.
        examples = records.unframe(b"".join(frames), where=f"a part of {self._workspace.output}")
        if folds:
            examples = [schema.set_fold(record, fold) for record, fold in zip(examples, folds, strict=True)]
        self._workspace.write_shard(name, records.frame(examples), num_clips=len(places), content=content)
        yield name
