"""Makes a feature dataset from a clip dataset: the library call behind `melcache cache`.

Feature shards mirror the clip shards one to one: the same names, lengths and order, with the array exchanged.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch import network_weights, parity_check, strategy_engine
from launch.feature_settings import FeatureSettings
from launch.feature_shards import FeatureShards
from launch.held_features import held_features
from model import strategy as strategies
from model.frozen_network import FrozenNetwork
from tfdata import clips as clip_streams
from tfdata import layout, lineage, storage
from tfdata.spec import FEATURES, LOG_MEL, ArraySpec, DatasetError, DatasetSpec
from tfdata.unfinished import Unfinished

RANDOM_NOTE = (
    "weights: random and calibrated on training clips, not ImageNet's: features without any learning in them, "
    "good for trying the pipeline"
)
STRATEGY, BEAM = "strategy", "beam"  # the engines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cached:
    """What a run did.

    Attributes:
      spec: of the features.
      num_embedded, num_taken: clips (variants counted) that went through the network in this run, and those whose
        features were taken from another dataset; shards that were there before count in neither.
      clips_per_s: of both, through reading, network and writing; 0.0 where there was nothing to do.
      devices: what the network ran on, and why.
      nothing_taken: why no features could be taken from `like`, or None.
    """

    spec: DatasetSpec
    num_embedded: int
    num_taken: int
    clips_per_s: float
    devices: str
    nothing_taken: str | None = None


def cache_features(
    *,
    data: str,
    output: str,
    settings: FeatureSettings,
    batch_size: int,
    provenance: Mapping[str, Any],
    show_progress: bool,
    strategy: str = strategies.AUTO,
    like: str | None = None,
    local_cache_dir: str | None = None,
    engine: str = STRATEGY,
    beam_args: Sequence[str] = (),
) -> Cached:
    """Run the frozen network once over all splits of `data` and write its features to `output`.

    Args:
      data: clip dataset directory.
      output: feature dataset directory to make; the same call continues an interrupted one, shard by shard.
      settings: what decides the features; with `like`, as `settings_like` gives them.
      batch_size: clips in one step, over all replicas.
      provenance: stored in the spec for people to read.
      strategy: one of `model.strategy.NAMES`.
      like: a feature dataset directory whose network, image range and variants are to be used, and whose features are
        taken where they are of the same audio, instead of computed again.
      local_cache_dir: where clips that are not local are copied first, see `tfdata.staging`.
      engine: STRATEGY runs the network here; BEAM on the workers of a Beam job, see `beam_engine`. The features are
        the same, and one finishes what the other began.
      beam_args: Beam's own options.
    Raises:
      DatasetError: `data` is no complete clip dataset, `output` is in use or complete (where it is complete and the
        clips have changed since, the message says what, and how to embed only what is new), a feature is not a number
        that can be stored, stored features are not near those computed anew, or a Beam job did not end well.
      DeviceError: there is no device for `strategy`.
      WeightsError: the weights can't be had or don't fit.
    """
    # Workers may run elsewhere: no path depends on where the command was given.
    data, output, like = (path and storage.absolute(path) for path in (data, output, like))
    clips = layout.read_spec(data, LOG_MEL)
    _check_not_outdated(output, data, clips)
    like_spec = layout.read_spec(like, FEATURES) if like else None
    unfinished = Unfinished(output)
    with unfinished.held(done_marker=layout.COMPLETED):
        embed, devices = _engine(
            engine, strategy=strategy, batch_size=batch_size, local_cache_dir=local_cache_dir, beam_args=beam_args
        )
        if engine != BEAM:  # damage is found before the network runs, not after an hour; Beam's workers look themselves
            clip_streams.check_shards(data, clips, local_cache_dir=local_cache_dir)
        if like:
            network, statistics = network_weights.of_features(like, like_spec, unfinished, weights=settings.weights)
        else:
            network, statistics = network_weights.of_clips(
                settings, data, clips, unfinished, local_cache_dir=local_cache_dir
            )
        feature_shards = FeatureShards(
            data=data,
            clips=clips,
            array=ArraySpec(name="feature", shape=network.feature_shape, dtype=settings.precision),
            unfinished=unfinished,
            num_variants=settings.variants if "train" in clips.splits else 0,
            augment=settings.augment,
        )
        described = {
            "image": dataclasses.asdict(network.image),
            "weights": network_weights.described(network),
            "compute_precision": network.compute_precision,
            **(settings.described_variants() if feature_shards.num_variants else {}),
        }
        unfinished.begin(_identity(clips, settings.precision, network, described))
        if statistics is not None:
            storage.write_bytes(network.statistics_path, statistics)
        nothing_taken = None
        if like:
            held, nothing_taken = held_features(like, like_spec, clips)
            feature_shards = dataclasses.replace(feature_shards, held=held)

        done = embed(network, feature_shards, batch_size=batch_size, show_progress=show_progress)
        provenance = {**provenance, "weights": network.weights, "engine": engine}
        spec = _finish(network, feature_shards, described, provenance=provenance)
    return Cached(
        spec=spec,
        num_embedded=done.num_embedded,
        num_taken=done.num_taken,
        clips_per_s=(done.num_embedded + done.num_taken) / done.seconds if done.seconds else 0.0,
        devices=devices,
        nothing_taken=nothing_taken,
    )


def _engine(
    name: str, *, strategy: str, batch_size: int, local_cache_dir: str | None, beam_args: Sequence[str]
) -> tuple[Callable, str]:
    """What embeds the shards of a job, and on which devices; fails before any work where that can't be."""
    if name == BEAM:
        from launch import beam_engine  # only this engine needs Beam

        job = beam_engine.pipeline_with(beam_args)
        devices = f"the workers of a Beam job ({type(job.runner).__name__})"
        return functools.partial(beam_engine.embed, job=job, strategy=strategy), devices
    chosen, why = strategies.choose(strategy)
    strategies.check_batch_size(batch_size, chosen)
    return functools.partial(strategy_engine.embed, strategy=chosen, local_cache_dir=local_cache_dir), why


def _identity(
    clips: DatasetSpec, precision: str, network: FrozenNetwork, described: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that decides the result, for a job that is taken up again; neither engine nor batch size is in it."""
    pooled = {"pooled": True} if network.pooled else {}
    return {"data": clips.fingerprint, "precision": precision, **pooled, **described}


def _check_not_outdated(output: str, data: str, clips: DatasetSpec) -> None:
    """That `output` is complete is for `Unfinished` to say, but where its clips have changed there is more to say."""
    if not layout.is_complete(output):
        return
    features = layout.read_spec(output)
    if features.kind != FEATURES or (changed := lineage.difference(features, clips)) is None:
        return
    if features.parent.get("content_digest") != clips.content_digest:
        changed += f" ({lineage.content_change(output, features, data, clips)})"
    raise DatasetError(
        f"{output} is complete, but {data} is not what it was made from any more: {changed}. To embed only what is "
        f"new:\n  {lineage.mending_command(output, data)}"
    )


def _finish(
    network: FrozenNetwork,
    feature_shards: FeatureShards,
    described: Mapping[str, Any],
    *,
    provenance: Mapping[str, Any],
) -> DatasetSpec:
    """Check what was written, and declare the dataset complete."""
    clips, unfinished = feature_shards.clips, feature_shards.unfinished
    output = unfinished.output
    if network.statistics_path:
        target = storage.join(output, network_weights.STATISTICS)
        storage.write_bytes(target, storage.read_bytes(network.statistics_path))
    splits = {
        split: unfinished.split_info(feature_shards.names(split), clips.splits[source].class_counts)
        for split, (source, _) in feature_shards.splits().items()
    }
    spec = DatasetSpec(
        kind=FEATURES,
        array=feature_shards.array,
        class_names=clips.class_names,
        metadata_columns=clips.metadata_columns,
        settings=described,
        statistics={},
        splits=splits,
        content_digest=clips.content_digest,
        num_recordings=clips.num_recordings,
        num_rejects=clips.num_rejects,
        parent=lineage.parent(clips, feature_shards.data),
        provenance=provenance,
    )
    parity = parity_check.check_parity(network, feature_shards, output, spec)
    if not parity["ok"]:
        raise DatasetError(
            f"{output} was not declared complete: {parity_check.sentence(parity)}. The device that embedded them "
            f"computes otherwise than it says: remove {output}, and try --strategy=cpu, or "
            "--compute_precision=bfloat16 where that is what it does"
        )
    spec = dataclasses.replace(spec, parity=parity)
    layout.complete(output, spec)
    unfinished.remove()
    return spec
