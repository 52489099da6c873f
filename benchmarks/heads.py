"""How fast heads train, as ratios in one run against keras.Model.fit and against running the base in every epoch.

  .venv/bin/python benchmarks/heads.py --features=DIR

DIR is a feature dataset that `melcache cache` made. Trained are the thesis's four setups for all their epochs, from the
same arrays, start and standardisation; every way in a process of its own, with all cores, from arrays in memory to
trained weights and the answers on validation and test clips. Interleaved rounds; the median, lowest and highest.

The rate of the base is measured too, and the time that the source system's way would take follows by arithmetic: base
and head in every epoch, over training and validation clips.
"""

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time

import numpy as np

from model.thesis import SETUPS
from tfdata import in_memory, layout

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CLOSE_EPOCHS = 5  # how many epochs are compared batch order by batch order
BASE_CLIPS = 512


def divided(features_dir, large):
    """HeadInputs of the dataset's own splits, or of synthetic clips that are more than the values of a feature."""
    from model.head_inputs import Division

    if large:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 7, large)
        array = rng.standard_normal((large, 3, 3, 1536), np.float32).astype(np.float16)
        array[:, :, :, :7] += np.eye(7, dtype=np.float16)[labels][:, np.newaxis, np.newaxis, :]
        held_out = large // 20
        rows = np.split(np.arange(large), [large - 2 * held_out, large - held_out])
        return array, labels, Division(*rows), 7
    spec = layout.read_spec(features_dir)
    loaded = in_memory.load(features_dir, spec)
    division = Division(*(loaded.rows(split) for split in ("train", "validation", "test")))
    return loaded.array, loaded.labels, division, len(spec.class_names)


def ours(features_dir, setups, large):
    """All setups in one pass, as `melcache heads` does it."""
    from launch.head_divisions import DivisionName
    from launch.head_work import HeadTask, train_all
    from model.head_inputs import HeadInputs

    array, labels, division, num_classes = divided(features_dir, large)
    began, losses = time.perf_counter(), {}
    tasks = [HeadTask(name, settings, 0, DivisionName()) for name, settings in setups.items()]

    def inputs(task):
        return HeadInputs(array, labels, division, num_classes=num_classes, pooling="none", standardise=True)

    for task, _, head in train_all(tasks, inputs):
        head.make_layers()
        losses[task.setup] = [metrics["train_loss"] for metrics in head.history]
    return time.perf_counter() - began, losses


def keras_fit(features_dir, setups, large, in_our_order=False):
    """One after the other by keras.Model.fit, on float32 arrays that are standardised already."""
    import keras

    from model.head_inputs import HeadInputs
    from model.head_network import initial_layers

    array, labels, division, num_classes = divided(features_dir, large)
    inputs = HeadInputs(array, labels, division, num_classes=num_classes, pooling="none", standardise=True)
    values = {part: inputs.values(part) for part in ("train", "validation", "test")}
    truth = inputs.labels
    seconds, losses = 0.0, {}
    for name, settings in setups.items():
        began = time.perf_counter()
        model = keras.Sequential([keras.Input((inputs.num_values,))])
        for units in settings.hidden_units:
            model.add(keras.layers.Dense(units, activation="relu"))
        model.add(keras.layers.Dense(num_classes, activation="softmax"))
        start = initial_layers(settings, 0, inputs.num_values, num_classes)
        model.set_weights([a for layer in start for a in layer])
        rate = keras.optimizers.schedules.InverseTimeDecay(settings.learning_rate, 1, settings.decay_rate)
        optimizer = keras.optimizers.SGD(rate, settings.momentum, settings.nesterov)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        if in_our_order:
            rng = np.random.default_rng([0, 1_000_000])
            losses[name] = []
            for _ in range(settings.epochs):
                order = inputs.epoch_order(rng)
                fitted = model.fit(values["train"][order], truth["train"][order], settings.batch_size, verbose=0,
                                   shuffle=False)  # fmt: skip
                losses[name] += fitted.history["loss"]
        else:
            fitted = model.fit(
                values["train"], truth["train"], settings.batch_size, settings.epochs, verbose=0,
                validation_data=(values["validation"], truth["validation"]),
            )  # fmt: skip
            model.predict(values["test"], verbose=0)
            losses[name] = fitted.history["loss"]
        seconds += time.perf_counter() - began
    return seconds, losses


def base():
    """Clips a second through Inception-ResNet-v2 by model.predict, on images that are ready."""
    import keras

    network = keras.applications.InceptionResNetV2(weights=None, include_top=False, input_shape=(150, 150, 3))
    images = np.random.default_rng(0).uniform(-1, 1, (BASE_CLIPS, 150, 150, 3)).astype(np.float32)
    network.predict(images[:64], batch_size=32, verbose=0)
    began = time.perf_counter()
    network.predict(images, batch_size=32, verbose=0)
    return BASE_CLIPS / (time.perf_counter() - began), None


def measured(function, *arguments, **options):
    """The function's result, and the most memory that its process of its own took, in bytes."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, function, arguments, options))
    process.start()
    send.close()
    result = receive.recv()
    process.join()
    return result


def _child(send, function, arguments, options):
    result = function(*arguments, **options)
    send.send((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def spread(values):
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def compare(features_dir, setups, rounds, large, title):
    print(f"\n{title}")
    times, memory = {"ours": [], "keras": []}, {}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("keras", keras_fit)):
            (seconds, losses), memory[name] = measured(function, features_dir, setups, large)
            times[name].append(seconds)
            if name == "ours":
                our_losses = losses
            else:
                shuffled_losses = losses
    ratios = [keras / own for own, keras in zip(times["ours"], times["keras"])]
    print(f"  keras.Model.fit        {spread(times['keras'])}, memory {memory['keras'] / 2**30:.2f} GiB")
    print(f"  melcache               {spread(times['ours'])}, memory {memory['ours'] / 2**30:.2f} GiB")
    print(f"  ratio                  {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    for name in setups:
        print(f"  {name}: last training loss {our_losses[name][-1]:.5f}, Keras's {shuffled_losses[name][-1]:.5f}")
    return statistics.median(times["ours"]), statistics.median(times["keras"]), our_losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=16_000, help="clips of the synthetic collection; 0 leaves it out")
    arguments = parser.parse_args()

    spec = layout.read_spec(arguments.features)
    counts = {name: info.num_clips for name, info in spec.splits.items()}
    own_s, keras_s, losses = compare(
        arguments.features, SETUPS, arguments.rounds, 0, f"four setups, all epochs, clips {counts}"
    )
    (_, same_order), _ = measured(keras_fit, arguments.features, SETUPS, 0, in_our_order=True)
    for name in SETUPS:
        difference = np.abs(np.array(losses[name]) / np.array(same_order[name]) - 1)
        print(
            f"  {name}: in one batch order, training losses differ by at most {difference[:CLOSE_EPOCHS].max():.1e} of "
            f"their size in the first {CLOSE_EPOCHS} epochs, {difference.max():.1e} in all {len(difference)}"
        )
    (rate, _), _ = measured(base)
    seen = (counts["train"] + counts.get("validation", 0)) * sum(settings.epochs for settings in SETUPS.values())
    print("\nthe source system's way, by arithmetic: the base in every epoch, over training and validation clips")
    print(f"  model.predict          {rate:.1f} clips/s, {seen:,} clips")
    print(f"  base and Keras heads   {seen / rate + keras_s:,.0f} s")
    print(f"  ratio                  {(seen / rate + keras_s) / own_s:,.0f} (without the base's one pass in the cache, "
          f"{(seen / rate + keras_s) / (own_s + sum(counts.values()) / rate):.0f} with it)")  # fmt: skip

    if arguments.large:
        one_epoch = {name: dataclasses.replace(SETUPS[name], epochs=1) for name in ("setup1", "setup3")}
        title = f"more clips than values: {arguments.large:,} synthetic clips, setup1 and setup3 for one epoch"
        compare(None, one_epoch, 1, arguments.large, title)


if __name__ == "__main__":
    main()
