"""Embeds clips on this machine's devices: reading, network and writing at the same time, a thread for each."""

import dataclasses
import itertools
import time
from collections.abc import Generator, Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from launch.ahead import ahead
from launch.feature_shards import FeatureShards
from model.extract import Extractor
from model.frozen_network import FrozenNetwork
from tfdata import shards, staging

_BATCHES_WAITING = 4  # before the network for the reader, behind it for the writer


@dataclasses.dataclass(frozen=True)
class Embedded:
    """How many clips went through the network, of how many the features were held, and the seconds for both.

    The seconds go from the first clip read to the last shard written; building the network is not in them.
    """

    num_embedded: int
    num_taken: int
    seconds: float


def embed(
    network: FrozenNetwork,
    feature_shards: FeatureShards,
    *,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    show_progress: bool,
    local_cache_dir: str | None = None,
) -> Embedded:
    """Write each feature shard that is not there yet.

    Args:
      strategy: as `model.strategy.choose` gives it.
      batch_size: clips in one step, over all replicas.
      local_cache_dir: where clips that are not local are copied first, see `tfdata.staging`.
    Raises:
      DatasetError: a clip shard was damaged meanwhile, or a feature can't be stored.
      OSError: a shard can't be written.
    """
    if not feature_shards.todo():
        return Embedded(0, 0, 0.0)
    shape = feature_shards.clips.array.shape
    extractor = Extractor(lambda: network.build(shape), strategy=strategy, batch_size=batch_size)
    return embed_with(extractor, feature_shards, show_progress=show_progress, local_cache_dir=local_cache_dir)


def embed_with(
    extractor: Extractor, feature_shards: FeatureShards, *, show_progress: bool, local_cache_dir: str | None = None
) -> Embedded:
    """The same with a network that is built."""
    started = time.monotonic()
    todo = feature_shards.todo()
    copies = dict(zip(todo, staging.stage([shard.source.path for shard in todo], local_cache_dir)))

    def log_mels() -> Iterator[np.ndarray]:
        for shard, copy in copies.items():
            clip_records = shards.read(shard.source, copy=copy)
            held = feature_shards.held_places(shard, clip_records)
            yield feature_shards.log_mels(shard, [record for record, is_held in zip(clip_records, held) if not is_held])

    def embedded() -> Generator[np.ndarray, None, None]:
        with ahead(_batches(log_mels(), extractor.batch_size), max_waiting=_BATCHES_WAITING) as batches:
            yield from extractor(batches)

    num_held = 0
    num_todo = sum(shard.source.num_clips for shard in todo)
    with (
        tqdm(total=num_todo, desc="cache", unit=" clips", disable=not show_progress) as bar,
        ahead(embedded(), max_waiting=_BATCHES_WAITING) as batches,
    ):
        new = itertools.chain.from_iterable(batches)
        for shard, copy in copies.items():
            clip_records = shards.read(shard.source, copy=copy)
            places = feature_shards.held_places(shard, clip_records)
            held = iter(feature_shards.held_features(shard, clip_records))
            feature_shards.write(shard, clip_records, _merged(places, held, new, bar))
            num_held += sum(places)
    return Embedded(num_todo - num_held, num_held, time.monotonic() - started)


def _batches(parts: Iterator[np.ndarray], batch_size: int) -> Generator[np.ndarray, None, None]:
    """The same rows in batches of one size, the last one perhaps shorter."""
    rest: np.ndarray | None = None
    for part in parts:
        rest = part if rest is None else np.concatenate([rest, part])
        while len(rest) >= batch_size:
            yield rest[:batch_size]
            rest = rest[batch_size:]
    if rest is not None and len(rest):
        yield rest


def _merged(
    places: list[bool], held: Iterator[np.ndarray], new: Iterator[np.ndarray], bar: tqdm
) -> Iterator[np.ndarray]:
    """For each place the next feature that is held, or else the next new one."""
    for is_held in places:
        yield next(held if is_held else new)
        bar.update()
