"""Reads some clips of a feature dataset back from its shards and has their features computed anew."""

import numpy as np

from launch import network_weights
from launch.feature_settings import variants_of
from launch.feature_shards import VARIED, FeatureShard, FeatureShards
from model import backbone as backbones
from model import parity
from model.backbone import WeightsError
from model.frozen_network import FrozenNetwork
from tfdata import layout, lineage, schema, shards
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

_NUM_CLIPS = 8


class WrongDatasetError(DatasetError):
    """What is wrong with the features lies in their own directory: their order, or the weights kept there."""


def check_parity(network: FrozenNetwork, feature_shards: FeatureShards, directory: str, spec: DatasetSpec) -> dict:
    """Compare stored features with new ones, of clips drawn by the fingerprint of the clip dataset.

    Args:
      network: the one the features were made with.
      feature_shards: how they follow from the clips.
      directory: where their shards are.
      spec: of the features; need not be written yet.
    Returns:
      what `model.parity.measure` tells, the threshold, and "ok".
    Raises:
      DatasetError: a shard is missing or damaged.
      WrongDatasetError: clips and features do not stand in the same order.
      WeightsError: the weights can't be had, or are other ones now.
    """
    drawn = _draw(feature_shards, directory, spec)
    log_mels, stored = [], []
    for (feature_shard, place), written in drawn:
        clip_record = shards.read(feature_shard.source)[place]
        clip, feature = schema.decode_clip(shards.read(written)[place], spec)
        if clip != schema.decode_clip(clip_record, feature_shards.clips)[0]:
            raise WrongDatasetError(
                f"{written.path} holds {clip.id} where {feature_shard.source.path} has another clip"
            )
        log_mels.append(feature_shards.log_mels(feature_shard, [clip_record])[0])
        stored.append(feature)
    measured = parity.measure(network, np.stack(log_mels), np.stack(stored))
    allowed = parity.threshold(network.compute_precision, spec.array.dtype)
    # A network that ran in training mode by mistake must not pass, however wide the threshold.
    ok = measured["relative_rms"] <= allowed and measured["relative_rms"] < measured["training_mode_relative_rms"]
    return {**measured, "threshold": allowed, "ok": ok}


def check_dataset(
    directory: str, spec: DatasetSpec, *, data: str | None, weights: str | None
) -> tuple[dict | None, str]:
    """Check a complete feature dataset, where its clips and weights can be had.

    Args:
      data: where its clips are now, if not where they were.
      weights: where its weights file is now, likewise.
    Returns:
      what `check_parity` tells and a sentence about it; or None and why it could not be checked.
    Raises:
      WrongDatasetError: as `check_parity`, or the dataset's own batch-norm statistics are not what they were.
    """
    data = data or spec.parent["path"]
    try:
        clips = layout.read_spec(data, LOG_MEL)
        if changed := lineage.difference(spec, clips):
            return None, f"{data} holds other clips than it was made from: {changed}"
        feature_shards = FeatureShards(
            data=data,
            clips=clips,
            array=spec.array,
            unfinished=Unfinished(directory),
            num_variants=len(layout.variant_splits(spec, VARIED)),
            augment=variants_of(spec),
        )
        found = check_parity(
            network_weights.of_dataset(directory, spec, weights=weights), feature_shards, directory, spec
        )
    except WrongDatasetError:
        raise
    except WeightsError as error:
        if spec.settings["weights"]["source"] == backbones.RANDOM:
            raise WrongDatasetError(str(error)) from error
        return None, str(error)
    except (ValueError, OSError) as error:
        return None, str(error)
    return found, sentence(found)


def _draw(feature_shards: FeatureShards, directory: str, spec: DatasetSpec) -> list:
    """((feature shard, place in it), the written shard) of some clips over all splits, variants too."""
    places = []
    for split, (source_split, variant) in feature_shards.splits().items():
        sources = shards.of_split(feature_shards.data, feature_shards.clips, source_split)
        for source, written in zip(sources, shards.of_split(directory, spec, split), strict=True):
            shard = FeatureShard(source, written.name, variant)
            places += [((shard, place), written) for place in range(written.num_clips)]
    random = np.random.default_rng(int(feature_shards.clips.fingerprint[:16], 16))
    chosen = random.choice(len(places), min(_NUM_CLIPS, len(places)), replace=False)
    return [places[place] for place in sorted(chosen)]


def sentence(found: dict) -> str:
    """What was found, for people."""
    return (
        f"{found['num_clips']} clips computed anew differ by {found['relative_rms']:.2g} of the features' RMS, at most "
        f"{found['threshold']:g} is allowed (bfloat16: {found['bfloat16_relative_rms']:.2g}; batch norm in training "
        f"mode: {found['training_mode_relative_rms']:.2g})"
    )
