"""The weights of a job's frozen network: loaded, made and calibrated, or taken over from a feature dataset."""

import dataclasses
import io
from typing import Any

import numpy as np

from launch.feature_settings import FeatureSettings
from model import backbone as backbones
from model.frozen_network import FrozenNetwork
from tfdata import clips as clip_streams
from tfdata import storage
from tfdata.spec import DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

STATISTICS = "batch_norm.npz"  # with the seed, all there is to know of random weights
_CALIBRATION_BATCHES, _CALIBRATION_BATCH_SIZE = 20, 64


def of_dataset(directory: str, spec: DatasetSpec, weights: str | None = None) -> FrozenNetwork:
    """The network that the features in `directory` were made with.

    Args:
      spec: of the feature dataset.
      weights: where its weights file is now, if not where it was.
    """
    described = spec.settings["weights"]
    source = described["source"]
    is_file = source not in (backbones.IMAGENET, backbones.RANDOM)
    return FrozenNetwork(
        weights=_place(weights or spec.provenance.get("weights", "")) if is_file else source,
        image=backbones.ImageSettings(**spec.settings["image"]),
        seed=described.get("seed", 0),
        compute_precision=spec.settings["compute_precision"],
        pooled=len(spec.array.shape) == 1,
        statistics_path=storage.join(directory, STATISTICS) if source == backbones.RANDOM else None,
        weights_digest=described["digest"],
    )


def of_clips(
    settings: FeatureSettings, data: str, clips: DatasetSpec, unfinished: Unfinished, *, local_cache_dir: str | None
) -> tuple[FrozenNetwork, bytes | None]:
    """A network for the clips in `data`, its weights digest known.

    Returns:
      the network, and what is still to be written to its `statistics_path`, or None.
    Raises:
      DatasetError: the clips have no train split, or are all silent.
      WeightsError: the weights can't be had or don't fit.
    """
    if "train" not in clips.splits:
        raise DatasetError(
            f"{data} has no train split, whose range scales the images: prepare the clips with one, or take range and "
            "weights from features that are there, with --like=FEATURES_DIR"
        )
    log_mel = clips.statistics["splits"]["train"]["log_mel"]
    network = FrozenNetwork(
        weights=_place(settings.weights),
        image=backbones.ImageSettings(low=log_mel["min"], high=log_mel["max"]),
        seed=settings.seed,
        compute_precision=settings.compute_precision,
        pooled=settings.pooled,
    )
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


def _place(weights: str) -> str:
    """`weights` as it can be found from other working directories, and on other machines where they share the disk."""
    return weights if weights in (backbones.IMAGENET, backbones.RANDOM) else storage.absolute(weights)


def of_features(
    directory: str, spec: DatasetSpec, unfinished: Unfinished, *, weights: str
) -> tuple[FrozenNetwork, bytes | None]:
    """The network of the feature dataset in `directory`, for a job of its own.

    Args:
      weights: where a weights file is now.
    Returns:
      the network, and what is still to be written to its `statistics_path`, or None.
    Raises:
      DatasetError: the statistics of its random weights are missing.
    """
    network = of_dataset(directory, spec, weights=weights)
    if network.statistics_path is None:
        return network, None
    try:
        statistics = storage.read_bytes(network.statistics_path)
    except FileNotFoundError as error:
        raise DatasetError(f"{network.statistics_path} is missing, without which its network can't be made") from error
    # A copy, so that the new dataset needs nothing of the old one.
    return dataclasses.replace(network, statistics_path=unfinished.path(STATISTICS)), statistics


def described(network: FrozenNetwork) -> dict[str, Any]:
    """How the spec describes a network's weights: without paths."""
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
