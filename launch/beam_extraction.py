"""Features by Apache Beam, on whatever machines its runner has: RunInference around the frozen network.

    shards to do ──▶ read clips ──▶ network ──▶ write features

An element is the name of a shard; a worker takes it all the way, so that no record travels through the runner. What no
other attempt would mend (weights that can't be had, a damaged shard) a worker notes in OUTPUT/unfinished/refused, and
the job ends with that sentence; what a store refuses is tried again by the runner.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import pickle
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_preprocess import beam_job
from launch.feature_shards import FeatureShard, FeatureShards
from tfdata import shards, storage
from tfdata.spec import DatasetError
from tfdata.unfinished import Unfinished

_NAMESPACE = "cache"  # of the job's metrics
_REFUSED = "refused"
# One works out features, with all cores, while the other reads and writes.
_LOCAL_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Clips:
    """A shard to do, and the records of its clips."""

    shard: FeatureShard
    records: list[bytes]


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The same with features, float [n, *feature_shape]."""

    shard: FeatureShard
    records: list[bytes]
    features: list[np.ndarray]


def pipeline_with(beam_args: Sequence[str]) -> beam.Pipeline:
    """An empty graph; as `beam_job.pipeline_with`. Without --runner it will run in this process.

    TensorFlow uses all cores by itself: processes would each build the network and get in each other's way.
    """
    return beam_job.pipeline_with(beam_args, in_processes=False, num_workers=_LOCAL_WORKERS)


def write_features(job: beam.Pipeline, features: FeatureShards, network, *, batch_size: int, show_progress: bool):
    """Write each feature shard that is not there yet; to be called while the output is held.

    Args:
      job: as `pipeline_with` makes it.
      network: a FrozenNetwork, whose files and digest all workers can read and check.
      batch_size: clips in one step of the network, on each worker.
    Returns:
      the number of clips embedded.
    Raises:
      DatasetError: a worker could not do a shard and said why, or the job did not end well.
    """
    todo = features.todo()
    if not todo:
        return 0
    refusals = _Refusals(features.unfinished)
    refusals.clear()
    build(job, todo=todo, features=features, network=network, batch_size=batch_size)
    sizes = {shard.name: shard.source.num_clips for shard in features.all()}
    work = beam_job.Work(
        name="cache",
        pieces="shards",
        unit="clips",
        sizes=sizes,
        done=_Done(features, todo),
        directory=features.unfinished.output,
    )
    try:
        with _without_remark():
            beam_job.run(job, work=work, show_progress=show_progress)
    except DatasetError as error:
        if reason := refusals.first():
            raise DatasetError(f"{reason}; nothing finished is lost, the same command continues") from error
        raise
    return sum(shard.source.num_clips for shard in todo)


def build(job: beam.Pipeline, *, todo: Sequence[FeatureShard], features: FeatureShards, network, batch_size: int):
    """Add the whole job to `job`."""
    handler = NetworkHandler(features, network, batch_size=batch_size).with_no_batching()
    handler = handler.with_preprocess_fn(functools.partial(_read, features))
    handler = handler.with_postprocess_fn(functools.partial(_write, features))
    _ = (
        job
        | "ShardsToDo" >> beam.Create(list(todo))
        | "SpreadShards" >> beam.Reshuffle()
        | "Embed" >> RunInference(handler)
    )


class NetworkHandler(ModelHandler[Clips | None, Embedded | None, "_Network"]):
    """Runs the network over whole shards, in batches of one size. A None is a shard that was refused before.

    The model is loaded once in each process, not shared between them: records and features would be copied to and fro.
    """

    def __init__(self, features: FeatureShards, network, *, batch_size: int):
        super().__init__()
        self._features = features
        # In pickled form, so that a worker without TensorFlow can still say what it lacks.
        self._network = pickle.dumps(network)
        self._batch_size = batch_size

    def load_model(self) -> "_Network":
        return _Network(self._network, self._features, self._batch_size)

    def run_inference(
        self, batch: Sequence[Clips | None], model: "_Network", inference_args: dict[str, Any] | None = None
    ) -> list[Embedded | None]:
        return [clips and _noted(self._features, clips.shard, functools.partial(model.embed, clips)) for clips in batch]

    def get_num_bytes(self, batch: Sequence[Clips | None]) -> int:
        return sum(len(record) for clips in batch if clips for record in clips.records)

    def get_metrics_namespace(self) -> str:
        return _NAMESPACE


class _Network:
    """The built network, or why there is none: loading must not fail, or runners would try it again and again."""

    def __init__(self, network: bytes, features: FeatureShards, batch_size: int):
        self._features = features
        self._batch_size = batch_size
        self._error: Exception | None = None
        # A shard at a time: the network uses all cores by itself, and features are large until they are written.
        self._turn = threading.Lock()
        try:
            from model.extract import batch_step

            self._step = batch_step(pickle.loads(network).build(features.clips.array.shape), batch_size)
        except ModuleNotFoundError as error:
            self._error = DatasetError(
                f"a worker lacks {error.name}: with --engine=beam workers need melcache[cpu], docs/dataflow.md says how"
            )
        except ValueError as error:
            self._error = error

    def embed(self, clips: Clips) -> Embedded:
        """The features of a shard.

        Raises:
          ValueError: the network could not be built; says why.
        """
        if self._error:
            raise self._error
        log_mels = self._features.log_mels(clips.shard, clips.records)
        batches = [log_mels[start : start + self._batch_size] for start in range(0, len(log_mels), self._batch_size)]
        with self._turn:
            embedded = [feature for batch in batches for feature in self._step(batch)]
        return Embedded(clips.shard, clips.records, embedded)


def _read(features: FeatureShards, shard: FeatureShard) -> list[Clips | None]:
    """A batch of one: the records of a shard, checked."""
    return [_noted(features, shard, lambda: Clips(shard, shards.read(shard.source)))]


def _write(features: FeatureShards, embedded: Embedded | None) -> None:
    def write() -> None:
        features.write(embedded.shard, embedded.records, embedded.features)
        Metrics.counter(_NAMESPACE, "clips").inc(len(embedded.records))

    if embedded:
        _noted(features, embedded.shard, write)


def _noted(features: FeatureShards, shard: FeatureShard, call: Callable[[], Any]) -> Any:
    """What `call` returns, or None where it refuses with a sentence: that is noted for whoever started the job."""
    try:
        return call()
    except ValueError as error:
        _Refusals(features.unfinished).note(shard, error)
        return None


@dataclasses.dataclass(frozen=True)
class _Refusals:
    """Why workers could not do a shard: a file for each below OUTPUT/unfinished."""

    unfinished: Unfinished

    def note(self, shard: FeatureShard, error: ValueError) -> None:
        note = {"worker": socket.gethostname(), "reason": str(error)}
        storage.write_text(self.unfinished.path(_REFUSED, shard.name), json.dumps(note))

    def first(self) -> str | None:
        """A sentence for the first shard that was refused; None where none was."""
        names = storage.list_names(self.unfinished.path(_REFUSED))
        if not names:
            return None
        note = json.loads(storage.read_text(self.unfinished.path(_REFUSED, min(names))))
        more = f" and {len(names) - 1} more shards" if len(names) > 1 else ""
        return f"{note['reason']} (on worker {note['worker']}, which left {min(names)}{more} undone)"

    def clear(self) -> None:
        storage.remove_tree(self.unfinished.path(_REFUSED))


class _Done:
    """The names of the shards that are written; reads each note once, and only when it is there."""

    def __init__(self, features: FeatureShards, todo: Sequence[FeatureShard]):
        self._unfinished = features.unfinished
        self._undone = {shard.name: shard.source.digest for shard in todo}
        self._done = {shard.name for shard in features.all()} - self._undone.keys()

    def __call__(self) -> set[str]:
        for name in self._unfinished.noted() & self._undone.keys():
            if self._unfinished.is_written(name, self._undone[name]):
                self._done.add(name)
                del self._undone[name]
        return self._done


@contextlib.contextmanager
def _without_remark() -> Iterator[None]:
    """Beam's remark that it can't measure memory concerns nobody; it comes where an extra of Beam is not installed."""

    def keep(record: logging.LogRecord) -> bool:
        return "Resource module is not available" not in record.getMessage()

    logging.getLogger().addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(keep)
