"""Makes a feature dataset from a clip dataset: the library call behind `melcache cache`.

Feature shards mirror the clip shards one to one: the same names, lengths and order, with the array exchanged.
"""

import io
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from model import backbone as backbones
from model.extract import extract
from tfdata import clips as clip_streams
from tfdata import layout, records, schema, shards, storage
from tfdata.spec import FEATURES, LOG_MEL, ArraySpec, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

STATISTICS = "batch_norm.npz"  # with the seed, all there is to know of random weights
RANDOM_NOTE = (
    "weights: random and calibrated on training clips, not ImageNet's: features without any learning in them, "
    "good for trying the pipeline"
)
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
    Returns:
      the spec, and clips per second through reading, network and writing (0.0 where every shard was there before).
    Raises:
      DatasetError: `data` is no complete clip dataset, or `output` is in use.
      WeightsError: the weights can't be had or don't fit.
    """
    clips = layout.read_spec(data, LOG_MEL)
    if "train" not in clips.splits:
        raise DatasetError(f"{data} has no train split, whose range scales the images: prepare the clips with one")
    unfinished = Unfinished(output)
    with unfinished.held(done_marker=layout.COMPLETED):
        log_mel = clips.statistics["splits"]["train"]["log_mel"]
        image = backbones.ImageSettings(low=log_mel["min"], high=log_mel["max"])
        # Damage is found before the network runs, not after an hour.
        clip_streams.check_shards(data, clips, local_cache_dir=local_cache_dir)
        network = backbones.build_backbone(image.size)
        statistics_path = unfinished.path(STATISTICS)
        described = _set_weights(
            network, data, clips, image, weights=weights, seed=seed, statistics_path=statistics_path,
            local_cache_dir=local_cache_dir,
        )  # fmt: skip
        settings = {
            "image": {"low": image.low, "high": image.high, "size": image.size},
            "weights": described,
            "compute_precision": "float32",
        }
        identity = {"data": clips.fingerprint, "precision": precision, **settings}
        unfinished.begin(identity)
        if weights == backbones.RANDOM:
            file = io.BytesIO()
            np.savez(file, **backbones.batch_norm_statistics(network))
            storage.write_bytes(statistics_path, file.getvalue())

        array = ArraySpec(name="feature", shape=backbones.FEATURE_SHAPE, dtype=precision)
        extractor = backbones.build_extractor(network, image, clips.array.shape)
        started = time.monotonic()
        num_clips = _write_shards(
            extractor, data, clips, unfinished, array, batch_size=batch_size, show_progress=show_progress,
            local_cache_dir=local_cache_dir,
        )  # fmt: skip
        seconds = time.monotonic() - started
        if weights == backbones.RANDOM:
            storage.write_bytes(storage.join(output, STATISTICS), storage.read_bytes(statistics_path))
        splits = {
            name: unfinished.split_info(_names(clips, name), split.class_counts) for name, split in clips.splits.items()
        }
        spec = DatasetSpec(
            kind=FEATURES,
            array=array,
            class_names=clips.class_names,
            metadata_columns=clips.metadata_columns,
            settings=settings,
            statistics={},
            splits=splits,
            content_digest=clips.content_digest,
            num_recordings=clips.num_recordings,
            num_rejects=clips.num_rejects,
            parent={"fingerprint": clips.fingerprint, "path": storage.absolute(data)},
            provenance={**provenance, "weights": weights},
        )
        layout.complete(output, spec)
        unfinished.remove()
    return spec, num_clips / seconds


def _set_weights(
    network, data: str, clips: DatasetSpec, image, *, weights: str, seed: int, statistics_path, local_cache_dir
) -> dict[str, Any]:
    """Load or make the weights; returns how the spec describes them."""
    if weights != backbones.RANDOM:
        backbones.load_weights(network, weights)
        source = weights if weights == backbones.IMAGENET else "file"
        return {"source": source, "digest": backbones.weights_digest(network)}
    backbones.randomise(network, seed)
    if storage.exists(statistics_path):  # an interrupted run's, so that the rest is made with the very same weights
        backbones.set_batch_norm_statistics(network, np.load(io.BytesIO(storage.read_bytes(statistics_path))))
    else:
        _calibrate(network, data, clips, image, local_cache_dir)
    return {
        "source": backbones.RANDOM,
        "seed": seed,
        "calibration_batches": _CALIBRATION_BATCHES,
        "calibration_batch_size": _CALIBRATION_BATCH_SIZE,
        "digest": backbones.weights_digest(network),
    }


def _calibrate(network, data: str, clips: DatasetSpec, image, local_cache_dir: str | None) -> None:
    """Set a random network's batch-norm statistics from training clips."""
    train = clip_streams.load_split(data, clips, "train", local_cache_dir=local_cache_dir).array
    to_image = backbones.LateImage(image)
    # Shards are shuffled by hash, so that any run of clips is a fair sample; a small dataset is gone through again.
    order = np.arange(_CALIBRATION_BATCHES * _CALIBRATION_BATCH_SIZE) % len(train)
    batches = (train[indices].astype(np.float32) for indices in np.split(order, _CALIBRATION_BATCHES))
    backbones.calibrate(network, (to_image(log_mel) for log_mel in batches))


def _names(clips: DatasetSpec, split: str) -> list[str]:
    """The feature shards of a split, one for each clip shard."""
    return layout.shard_names(FEATURES, split, len(clips.splits[split].shard_lengths))


def _write_shards(extractor, data, clips, unfinished, array, *, batch_size, show_progress, local_cache_dir) -> int:
    """Write each feature shard that is not there yet; returns the number of clips embedded."""
    todo = [  # shard of the clips, name of the features
        (source, target)
        for split in clips.splits
        for source, target in zip(shards.of_split(data, clips, split), _names(clips, split))
        if not unfinished.is_written(target, source.digest)
    ]
    if not todo:
        return 0
    num_todo = sum(source.num_clips for source, _ in todo)
    pending: list[bytes] = []  # clips on their way through the network, as they were read

    def log_mels() -> Iterator[np.ndarray]:
        paths = [source.path for source, _ in todo]
        batches = clip_streams.stream_batches(paths, clips, batch_size=batch_size, local_cache_dir=local_cache_dir)
        for serialised, log_mel in batches:
            pending.extend(serialised)
            yield log_mel

    embedded = (feature for batch in extract(extractor, log_mels(), batch_size=batch_size) for feature in batch)
    with tqdm(
        total=clips.num_clips,
        initial=clips.num_clips - num_todo,
        desc="cache",
        unit=" clips",
        disable=not show_progress,
    ) as bar:
        for source, target in todo:
            examples = []
            for _ in range(source.num_clips):
                feature = next(embedded)
                examples.append(schema.exchange_array(pending.pop(0), clips.array, feature, array))
                bar.update()
            data_of_shard = records.frame(examples)
            unfinished.write_shard(target, data_of_shard, num_clips=source.num_clips, content=source.digest)
    return num_todo
