"""The Beam graph that embeds clips, and what its workers do: RunInference around the frozen network.

    shards to do ──▶ read clips ──▶ network ──▶ write features

An element is the name of a shard; a worker takes it all the way, so that no record travels through the runner. What no
other attempt would mend (weights that can't be had, a damaged shard) is noted, and the worker goes on; what a store
refuses is raised, for the runner to try again. TensorFlow is imported only where the network is built.
"""

import dataclasses
import functools
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from launch.feature_shards import FeatureShard, FeatureShards
from launch.held_features import HeldFeatures
from launch.refusals import Refusals
from tfdata import shards, storage
from tfdata.spec import DatasetError

_METRICS = "cache"
_HELD = "held.json"


@dataclasses.dataclass(frozen=True)
class Clips:
    """A shard to do, and the records of its clips."""

    shard: FeatureShard
    records: list[bytes]


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The same with features, [n, *feature_shape] of the stored precision."""

    shard: FeatureShard
    records: list[bytes]
    features: np.ndarray


def build(
    job: beam.Pipeline,
    *,
    todo: Sequence[FeatureShard],
    features: FeatureShards,
    network,
    strategy: str,
    batch_size: int,
) -> None:
    """Add the whole job to `job`.

    Args:
      todo: the shards to write.
      network: a FrozenNetwork, whose files all workers can read.
      strategy: the devices of each worker, one of `model.strategy.NAMES`.
      batch_size: clips in one step of the network, on each worker.
    """
    if features.held:
        # It may be more than a graph can carry.
        storage.write_text(features.unfinished.path(_HELD), features.held.to_json())
    handler = NetworkHandler(features, network, strategy=strategy, batch_size=batch_size).with_no_batching()
    without_held = dataclasses.replace(features, held=None)
    handler = handler.with_preprocess_fn(functools.partial(_read, without_held))
    handler = handler.with_postprocess_fn(functools.partial(_write, without_held))
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

    def __init__(self, features: FeatureShards, network, *, strategy: str, batch_size: int):
        super().__init__()
        self._features = dataclasses.replace(features, held=None)
        self._is_held = features.held is not None
        # In pickled form, so that a worker without TensorFlow can still say what it lacks.
        self._network = pickle.dumps(network)
        self._strategy = strategy
        self._batch_size = batch_size

    def load_model(self) -> "_Network":
        features = self._features
        if self._is_held:
            held = HeldFeatures.from_json(storage.read_text(features.unfinished.path(_HELD)))
            features = dataclasses.replace(features, held=held)
        return _Network(features, self._network, strategy=self._strategy, batch_size=self._batch_size)

    def run_inference(
        self, batch: Sequence[Clips | None], model: "_Network", inference_args: dict[str, Any] | None = None
    ) -> list[Embedded | None]:
        refusals = Refusals(self._features.unfinished)
        return [clips and refusals.noted(clips.shard.name, functools.partial(model.embed, clips)) for clips in batch]

    def get_num_bytes(self, batch: Sequence[Clips | None]) -> int:
        return sum(len(record) for clips in batch if clips for record in clips.records)

    def get_metrics_namespace(self) -> str:
        return _METRICS


class _Network:
    """The built network, or why there is none: loading must not fail, or runners would try it again and again."""

    def __init__(self, features: FeatureShards, network: bytes, *, strategy: str, batch_size: int):
        self._features = features
        self._error: ValueError | None = None
        # A shard at a time: the network uses all cores by itself.
        self._turn = threading.Lock()
        try:
            from model import strategy as strategies
            from model.extract import Extractor

            build = functools.partial(pickle.loads(network).build, features.clips.array.shape)
            devices, _ = strategies.choose(strategy)
            self._extractor = Extractor(build, strategy=devices, batch_size=batch_size)
        except ModuleNotFoundError as error:
            self._error = DatasetError(
                f"a worker lacks {error.name}: with --engine=beam workers need melcache[cpu], docs/dataflow.md says how"
            )
        except ValueError as error:
            self._error = error

    def embed(self, clips: Clips) -> Embedded:
        """The features of a shard, those that are held among them.

        Raises:
          ValueError: the network could not be built; says why.
        """
        if self._error:
            raise self._error
        features = np.empty((len(clips.records), *self._features.array.shape), self._features.array.dtype)
        is_held = np.array(self._features.held_places(clips.shard, clips.records), bool)
        features[is_held] = self._features.held_features(clips.shard, clips.records) or 0
        new = np.flatnonzero(~is_held)
        log_mels = self._features.log_mels(clips.shard, [clips.records[place] for place in new])
        size = self._extractor.batch_size
        runs = [slice(start, start + size) for start in range(0, len(new), size)]
        with self._turn, np.errstate(over="ignore"):  # what became infinite is refused where it is written
            for run, batch in zip(runs, self._extractor(log_mels[run] for run in runs), strict=True):
                features[new[run]] = batch
        return Embedded(clips.shard, clips.records, features)


def _read(features: FeatureShards, shard: FeatureShard) -> list[Clips | None]:
    """A batch of one: the records of a shard, checked."""
    return [Refusals(features.unfinished).noted(shard.name, lambda: Clips(shard, shards.read(shard.source)))]


def _write(features: FeatureShards, embedded: Embedded | None) -> None:
    def write() -> None:
        features.write(embedded.shard, embedded.records, embedded.features)
        Metrics.counter(_METRICS, "clips").inc(len(embedded.records))

    if embedded:
        Refusals(features.unfinished).noted(embedded.shard.name, write)
