"""The Beam graph of a prepare job: decode parts, plan the shards, write them. The graph only; prepare.py runs it.

    parts ──▶ DecodePart ──▶ (all parts done) ──▶ PlanShards ──▶ ReadPart ──▶ GroupByKey ──▶ WriteShard

A worker imports what decoding needs and nothing of TensorFlow.
"""

from collections.abc import Callable

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from beam_preprocess import audio
from beam_preprocess.log_mel import LogMel
from beam_preprocess.plan import Plan
from beam_preprocess.recordings import Recording
from beam_preprocess.settings import PrepareSettings
from beam_preprocess.workspace import PartRef, Workspace
from tfdata import layout, records, schema, storage
from tfdata.spec import LOG_MEL, ArraySpec, DatasetError


def array_spec(settings: PrepareSettings) -> ArraySpec:
    """The array of a clip example."""
    return ArraySpec(name="log_mel", shape=settings.log_mel.shape, dtype=settings.precision)


def build(
    pipeline: beam.Pipeline,
    *,
    parts: list[PartRef],
    workspace: Workspace,
    settings: PrepareSettings,
    plan: Callable[[list[dict]], Plan],
    class_names: tuple[str, ...],
):
    """Add the whole job to `pipeline`; returns the PCollection of the names of the shards it wrote."""
    decoded = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "SpreadParts" >> beam.Reshuffle()
        | "DecodePart" >> beam.ParDo(DecodePart(workspace, settings, class_names))
    )
    return (
        pipeline
        | "Once" >> beam.Create([len(parts)])
        | "PlanShards" >> beam.ParDo(PlanShards(workspace, plan), beam.pvalue.AsList(decoded))
        | "SpreadReading" >> beam.Reshuffle()
        | "ReadPart" >> beam.ParDo(ReadPart(workspace))
        | "ByShard" >> beam.GroupByKey()
        | "WriteShard" >> beam.ParDo(WriteShard(workspace.output))
    )


class DecodePart(beam.DoFn):
    """Decodes the recordings of one part, writes its clips and its index, yields its number. Done parts are skipped."""

    def __init__(self, workspace: Workspace, settings: PrepareSettings, class_names: tuple[str, ...]):
        self._workspace = workspace
        self._settings = settings
        self._labels = {name: index for index, name in enumerate(class_names)}
        self._array = array_spec(settings)
        self._clips = Metrics.counter("prepare", "clips")
        self._rejects = Metrics.counter("prepare", "rejects")

    def setup(self):
        self._log_mel = LogMel(self._settings.log_mel)

    def process(self, part: PartRef):
        if not self._workspace.is_done(part.index):
            examples, lines = [], []
            for recording in self._workspace.read_inputs(part):
                try:
                    example, line = self._clip(recording)
                    line |= {"part": part.index, "place_in_part": len(examples)}
                    examples.append(example)
                    self._clips.inc()
                except Exception as error:  # whatever a file does to us, it is rejected by name and the others go on
                    reject = error if isinstance(error, audio.Reject) else _unforeseen(error)
                    line = {
                        "path": recording.name,
                        "label": recording.label,
                        "stage": reject.stage,
                        "reason": reject.reason,
                        "content_hash": audio.file_hash(recording.path),
                    }
                    self._rejects.inc()
                lines.append(line)
            self._workspace.write_part(part.index, examples, lines)
        yield part.index

    def _clip(self, recording: Recording) -> tuple[bytes, dict]:
        """The encoded example of a recording's clip and its index line; raises audio.Reject."""
        if recording.label is None:
            raise audio.Reject("list", "stands outside a class folder")
        settings = self._settings.log_mel
        sound = audio.decode(recording.path, duration_s=settings.clip_s)
        samples = audio.resample(sound.samples, from_hz=sound.sample_rate_hz, to_hz=settings.sample_rate_hz)
        image = self._log_mel(audio.fit(samples, settings.num_samples))
        if not np.isfinite(image).all():
            raise audio.Reject("log_mel", f"samples too large for a spectrum (up to {np.abs(samples).max():.3g})")
        clip = schema.Clip(
            recording=recording.name,
            start_s=0.0,
            label=self._labels[recording.label],
            group=recording.group,
            metadata=recording.metadata,
        )
        values = image.astype("float64")
        return schema.encode_clip(clip, image, self._array), {
            "id": clip.id,
            "recording": recording.name,
            "label": recording.label,
            "group": recording.group,
            "split": recording.split,
            "content_hash": sound.content_hash,
            "min": values.min(),
            "max": values.max(),
            "sum": values.sum(),
            "sum_of_squares": (values**2).sum(),
        }


def _unforeseen(error: Exception) -> audio.Reject:
    if isinstance(error, UnicodeEncodeError):
        return audio.Reject("list", "the name is not valid UTF-8: rename the file")
    return audio.Reject("decode", f"{type(error).__name__}: {error}")


class PlanShards(beam.DoFn):
    """Runs once, after all parts: yields for each part where each of its clips goes, but for shards already written.

    Where no plan can be made (too few clips of a class, say) it yields nothing: the same plan is made again where the
    job was started, and fails there with its message instead of a worker's trace.
    """

    def __init__(self, workspace: Workspace, make_plan: Callable[[list[dict]], Plan]):
        self._workspace = workspace
        self._make_plan = make_plan

    def process(self, num_parts: int, done_parts: list[int]):
        try:
            plan = self._make_plan(self._workspace.read_lines(done_parts))
        except DatasetError:
            return
        written = set(storage.list_names(self._workspace.output))
        places_by_part = {}
        for id, clip in plan.clips.items():
            split, shard, place = plan.places[id]
            name = layout.shard_name(LOG_MEL, split, shard, len(plan.shard_lengths[split]))
            if name not in written:
                places_by_part.setdefault(clip["part"], {})[clip["place_in_part"]] = (name, place)
        yield from sorted(places_by_part.items())


class ReadPart(beam.DoFn):
    """(part, {place in part: (shard, place in shard)}) to (shard, (place in shard, record))."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace

    def process(self, element):
        part, places = element
        for place_in_part, record in enumerate(self._workspace.read_records(part)):
            if place_in_part in places:
                shard, place = places[place_in_part]
                yield shard, (place, record)


class WriteShard(beam.DoFn):
    """(shard, its numbered records) to the shard's file; yields its name."""

    def __init__(self, output: str):
        self._output = output

    def process(self, element):
        shard, numbered = element
        in_order = [record for _, record in sorted(numbered)]
        storage.write_bytes(storage.join(self._output, shard), records.frame(in_order))
        yield shard
