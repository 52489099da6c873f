"""Makes a feature dataset from a clip dataset: the library call behind `melcache cache`.

Feature shards mirror the clip shards one to one: the same names, lengths and order, with the array exchanged.
"""

import dataclasses
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from launch.feature_shards import FeatureShards
from model import backbone as backbones
from model.extract import extract
from model.frozen_network import FrozenNetwork
from tfdata import clips as clip_streams
from tfdata import layout, shards, staging, storage
from tfdata.spec import FEATURES, LOG_MEL, ArraySpec, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

STATISTICS = "batch_norm.npz"  # with the seed, all there is to know of random weights
RANDOM_NOTE = (
    "weights: random and calibrated on training clips, not ImageNet's: features without any learning in them, "
    "good for trying the pipeline"
)
STRATEGY, BEAM = "strategy", "beam"  # the engines
_CALIBRATION_BATCHES, _CALIBRATION_BATCH_SIZE = 20, 64


def cache_features(
    *,
    data: str,
    output: str,
    weights: str,
    seed: int,
    batch_size: int,
    precision: str,
    provenance: Mapping[str, Any],
    show_progress: bool,
    local_cache_dir: str | None = None,
    engine: str = STRATEGY,
    beam_args: Sequence[str] = (),
) -> tuple[DatasetSpec, float]:
    """Run the frozen network once over all splits of `data` and write its features to `output`.

    Args:
      data: clip dataset directory.
      output: feature dataset directory to make; the same call continues an interrupted one, shard by shard.
      weights: "imagenet", "random" or a weights file.
      seed: of random weights.
      batch_size: clips in one step.
      precision: of the stored features, "float16" or "float32".
      provenance: stored in the spec for people to read.
      local_cache_dir: where clips that are not local are copied first, see `tfdata.staging`.
      engine: STRATEGY runs the network here; BEAM on the workers of a Beam job, see `beam_extraction`. The features are
        the same, and one finishes what the other began.
      beam_args: Beam's own options.
    Returns:
      the spec, and clips per second through reading, network and writing (0.0 where every shard was there before).
    Raises:
      DatasetError: `data` is no complete clip dataset, `output` is in use, or a Beam job did not end well.
      WeightsError: the weights can't be had or don't fit.
    """
    # Workers may run elsewhere: no path depends on where the command was given.
    data, output = storage.absolute(data), storage.absolute(output)
    clips = layout.read_spec(data, LOG_MEL)
    if "train" not in clips.splits:
        raise DatasetError(f"{data} has no train split, whose range scales the images: prepare the clips with one")
    if engine == BEAM:
        from launch import beam_extraction  # Beam is needed for nothing else here

        job = beam_extraction.pipeline_with(beam_args)
    unfinished = Unfinished(output)
    with unfinished.held(done_marker=layout.COMPLETED):
        if (
            engine == STRATEGY
        ):  # damage is found before the network runs, not after an hour; Beam's workers look themselves
            clip_streams.check_shards(data, clips, local_cache_dir=local_cache_dir)
        log_mel = clips.statistics["splits"]["train"]["log_mel"]
        image = backbones.ImageSettings(low=log_mel["min"], high=log_mel["max"])
        network = FrozenNetwork(weights=weights, seed=seed, image=image)
        network, statistics = _with_weights(network, data, clips, unfinished, local_cache_dir)
        settings = {
            "image": dataclasses.asdict(network.image),
            "weights": _described_weights(network),
            "compute_precision": network.compute_precision,
        }
        unfinished.begin({"data": clips.fingerprint, "precision": precision, **settings})
        if statistics is not None:
            storage.write_bytes(network.statistics_path, statistics)

        feature_shards = FeatureShards(
            data=data,
            clips=clips,
            array=ArraySpec(name="feature", shape=network.feature_shape, dtype=precision),
            unfinished=unfinished,
        )
        started = time.monotonic()
        how = {"batch_size": batch_size, "show_progress": show_progress}
        if engine == BEAM:
            if weights not in (backbones.IMAGENET, backbones.RANDOM):
                network = dataclasses.replace(network, weights=storage.absolute(weights))
            num_clips = beam_extraction.write_features(job, feature_shards, network, **how)
        else:
            num_clips = _embed(network, feature_shards, local_cache_dir=local_cache_dir, **how)
        seconds = time.monotonic() - started
        if network.statistics_path:
            storage.write_bytes(storage.join(output, STATISTICS), storage.read_bytes(network.statistics_path))
        splits = {
            name: unfinished.split_info(feature_shards.names(name), split.class_counts)
            for name, split in clips.splits.items()
        }
        spec = DatasetSpec(
            kind=FEATURES,
            array=feature_shards.array,
            class_names=clips.class_names,
            metadata_columns=clips.metadata_columns,
            settings=settings,
            statistics={},
            splits=splits,
            content_digest=clips.content_digest,
            num_recordings=clips.num_recordings,
            num_rejects=clips.num_rejects,
            parent={"fingerprint": clips.fingerprint, "path": data},
            provenance={**provenance, "weights": weights, "engine": engine},
        )
        layout.complete(output, spec)
        unfinished.remove()
    return spec, num_clips / seconds


def _with_weights(
    network: FrozenNetwork, data: str, clips: DatasetSpec, unfinished: Unfinished, local_cache_dir: str | None
) -> tuple[FrozenNetwork, bytes | None]:
    """`network` with its weights known, and the content of its statistics file where that is still to be written."""
    statistics = None
    if network.weights == backbones.RANDOM:
        path = unfinished.path(STATISTICS)
        if storage.exists(path):  # an interrupted run's, so that the rest is made with the very same weights
            backbone = dataclasses.replace(network, statistics_path=path).build_backbone()
        else:
            backbone = network.build_backbone()
            _calibrate(backbone, data, clips, network.image, local_cache_dir)
            file = io.BytesIO()
            np.savez(file, **backbones.batch_norm_statistics(backbone))
            statistics = file.getvalue()
        network = dataclasses.replace(network, statistics_path=path)
    else:
        backbone = network.build_backbone()
    return dataclasses.replace(network, weights_digest=backbones.weights_digest(backbone)), statistics


def _described_weights(network: FrozenNetwork) -> dict[str, Any]:
    """How the spec describes them: without paths."""
    if network.weights != backbones.RANDOM:
        source = network.weights if network.weights == backbones.IMAGENET else "file"
        return {"source": source, "digest": network.weights_digest}
    return {
        "source": backbones.RANDOM,
        "seed": network.seed,
        "calibration_batches": _CALIBRATION_BATCHES,
        "calibration_batch_size": _CALIBRATION_BATCH_SIZE,
        "digest": network.weights_digest,
    }


def _calibrate(backbone, data: str, clips: DatasetSpec, image, local_cache_dir: str | None) -> None:
    """Set a random network's batch-norm statistics from training clips."""
    train = clip_streams.load_split(data, clips, "train", local_cache_dir=local_cache_dir).array
    to_image = backbones.LateImage(image)
    # Shards are shuffled by hash, so that any run of clips is a fair sample; a small dataset is gone through again.
    order = np.arange(_CALIBRATION_BATCHES * _CALIBRATION_BATCH_SIZE) % len(train)
    batches = (train[indices].astype(np.float32) for indices in np.split(order, _CALIBRATION_BATCHES))
    backbones.calibrate(backbone, (to_image(log_mel) for log_mel in batches))


def _embed(network: FrozenNetwork, feature_shards: FeatureShards, *, batch_size, show_progress, local_cache_dir) -> int:
    """Write each feature shard that is not there yet; returns the number of clips embedded."""
    todo = feature_shards.todo()
    if not todo:
        return 0
    clips = feature_shards.clips
    copies = staging.stage([shard.source.path for shard in todo], local_cache_dir)
    extractor = network.build(clips.array.shape)
    read: list = []  # records of shards on their way through the network

    def log_mels() -> Iterator[np.ndarray]:
        rest = np.empty((0, *clips.array.shape), np.float32)
        for shard, copy in zip(todo, copies):
            read.append(shards.read(shard.source, copy=copy))
            rest = np.concatenate([rest, feature_shards.log_mels(shard, read[-1])])
            while len(rest) >= batch_size:
                yield rest[:batch_size]
                rest = rest[batch_size:]
        if len(rest):
            yield rest

    embedded = (feature for batch in extract(extractor, log_mels(), batch_size=batch_size) for feature in batch)
    num_todo = sum(shard.source.num_clips for shard in todo)
    with tqdm(
        total=clips.num_clips,
        initial=clips.num_clips - num_todo,
        desc="cache",
        unit=" clips",
        disable=not show_progress,
    ) as bar:
        for shard in todo:
            features = []
            for _ in range(shard.source.num_clips):
                features.append(next(embedded))
                bar.update()
            feature_shards.write(shard, read.pop(0), features)
    return num_todo
