"""How fast `cache` is, as ratios in one run against the network alone and against Keras's own predict.

  .venv/bin/python benchmarks/cache.py --data=CLIPS

CLIPS is a clip dataset that `melcache prepare` made. The network has random weights; neither their calibration nor
building the network nor the check at the end is timed. Rounds are interleaved, and the median of their rates is told
with the lowest and highest.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from launch import network_weights, strategy_engine
from launch.feature_settings import FeatureSettings
from launch.feature_shards import FeatureShards
from model import backbone as backbones
from model import strategy as strategies
from model.extract import Extractor
from model.frozen_network import set_compute_precision
from tfdata import clips as clip_streams
from tfdata import layout
from tfdata.spec import ArraySpec
from tfdata.unfinished import Unfinished

_MAX_IMAGES = 2048  # 270 KB each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="clip dataset directory")
    parser.add_argument("--strategy", default="auto", choices=strategies.NAMES)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--compute_precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    spec = layout.read_spec(arguments.data)
    devices, why = strategies.choose(arguments.strategy)
    with tempfile.TemporaryDirectory() as folder:
        settings = FeatureSettings(weights=backbones.RANDOM, compute_precision=arguments.compute_precision)
        network, statistics_file = network_weights.of_clips(
            settings, arguments.data, spec, Unfinished(folder), local_cache_dir=None
        )
        pathlib.Path(network.statistics_path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(network.statistics_path).write_bytes(statistics_file)
        rates = measure(rows(network, arguments, spec, devices, folder), arguments.rounds)
    print(f"{spec.num_clips:,} clips in batches of {arguments.batch_size} in {arguments.compute_precision}, on {why}")
    alone = rates["network alone, input in memory"][0]
    print(f"{'':36}{'clips/s':>9}{'lowest':>9}{'highest':>9}{'/ alone':>9}")
    for name, (median, low, high) in rates.items():
        print(f"{name:36}{median:9.1f}{low:9.1f}{high:9.1f}{median / alone:9.3f}")


def rows(network, arguments, spec, devices, folder):
    """What is compared: each returns how many clips it went through, all of the dataset's where memory allows."""
    batch_size, shape = arguments.batch_size, spec.array.shape
    extractor = Extractor(lambda: network.build(shape), strategy=devices, batch_size=batch_size)
    batch = np.random.default_rng(0).uniform(network.image.low, network.image.high, (batch_size, *shape))
    whole, rest = divmod(spec.num_clips, batch_size)
    synthetic = [batch.astype(np.float32)] * whole + [batch[:rest].astype(np.float32)] * bool(
        rest
    )  # batches as cache's

    def alone():
        return sum(len(features) for features in extractor(synthetic))

    def cached():
        features = FeatureShards(
            data=arguments.data,
            clips=spec,
            array=ArraySpec(name="feature", shape=network.feature_shape, dtype="float16"),
            unfinished=Unfinished(tempfile.mkdtemp(dir=folder)),
        )
        clip_streams.check_shards(arguments.data, spec)
        strategy_engine.embed_with(extractor, features, show_progress=False)
        return spec.num_clips

    clips = np.concatenate([clip_streams.load_split(arguments.data, spec, split).array for split in spec.splits])
    to_image = backbones.LateImage(network.image)
    parts = np.array_split(clips[:_MAX_IMAGES].astype(np.float32), 1 + _MAX_IMAGES // 64)
    images = np.concatenate([to_image(part).numpy() for part in parts if len(part)])
    backbone = network.build_backbone()
    set_compute_precision(backbone, network.compute_precision)

    def predict():
        backbone.predict(images, batch_size=batch_size, verbose=0)
        return len(images)

    return {
        "network alone, input in memory": alone,
        "melcache cache": cached,
        "keras predict, images in memory": predict,
    }


def measure(rows, rounds):
    """Median, lowest and highest rate of each row, in clips a second."""
    rates = {name: [] for name in rows}
    for run in rows.values():  # not counted: compiled here
        run()
    for _ in range(rounds):
        for name, run in rows.items():
            started = time.perf_counter()
            num_clips = run()
            rates[name].append(num_clips / (time.perf_counter() - started))
    return {name: (statistics.median(found), min(found), max(found)) for name, found in rates.items()}


if __name__ == "__main__":
    main()
