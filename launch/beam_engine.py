"""Embeds clips by a Beam job, here or on many machines: from the shards to do to a sentence about what went wrong."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam

from beam_preprocess import beam_job
from launch import beam_extraction
from launch.feature_shards import FeatureShard, FeatureShards
from launch.refusals import Refusals
from launch.strategy_engine import Embedded
from model.frozen_network import FrozenNetwork
from tfdata import shards
from tfdata.spec import DatasetError

# One works out features, with all cores, while the other reads and writes.
_LOCAL_WORKERS = 2


def pipeline_with(beam_args: Sequence[str]) -> beam.Pipeline:
    """An empty graph; as `beam_job.pipeline_with`. Without --runner it will run in this process.

    TensorFlow uses all cores by itself: processes would each build the network and get in each other's way.
    """
    return beam_job.pipeline_with(beam_args, in_processes=False, num_workers=_LOCAL_WORKERS)


def embed(
    network: FrozenNetwork,
    feature_shards: FeatureShards,
    *,
    job: beam.Pipeline,
    strategy: str,
    batch_size: int,
    show_progress: bool,
) -> Embedded:
    """Write each feature shard that is not there yet; to be called while the output is held.

    Args:
      network: its files must be where all workers can read them.
      job: as `pipeline_with` makes it.
      strategy: the devices of each worker, one of `model.strategy.NAMES`.
      batch_size: clips in one step of the network, on each worker.
    Returns:
      what was done; the seconds go from the start of the job to its end, so that building the network is in them.
    Raises:
      DatasetError: a worker could not do a shard and said why, or the job did not end well.
    """
    todo = feature_shards.todo()
    if not todo:
        return Embedded(0, 0, 0.0)
    num_held = _num_held(feature_shards, todo)
    refusals = Refusals(feature_shards.unfinished)
    refusals.clear()
    beam_extraction.build(
        job, todo=todo, features=feature_shards, network=network, strategy=strategy, batch_size=batch_size
    )
    work = beam_job.Work(
        name="cache",
        pieces="shards",
        unit="clips",
        sizes={shard.name: shard.source.num_clips for shard in feature_shards.all()},
        done=_Done(feature_shards, todo),
        directory=feature_shards.unfinished.output,
    )
    started = time.monotonic()
    try:
        with _without_remark():
            beam_job.run(job, work=work, show_progress=show_progress)
    except DatasetError as error:
        if reason := refusals.first():
            raise DatasetError(f"{reason}; nothing finished is lost, the same command continues") from error
        raise
    num_todo = sum(shard.source.num_clips for shard in todo)
    return Embedded(num_todo - num_held, num_held, time.monotonic() - started)


def _num_held(feature_shards: FeatureShards, todo: Sequence[FeatureShard]) -> int:
    if not feature_shards.held:
        return 0
    return sum(sum(feature_shards.held_places(shard, shards.read(shard.source))) for shard in todo)


class _Done:
    """The names of the shards that are written; reads each note once, and only when it is there."""

    def __init__(self, feature_shards: FeatureShards, todo: Sequence[FeatureShard]):
        self._unfinished = feature_shards.unfinished
        self._undone = {shard.name: shard.source.digest for shard in todo}
        self._done = {shard.name for shard in feature_shards.all()} - self._undone.keys()

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
