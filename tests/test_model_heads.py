"""Heads against Keras's own fit, setting by setting, and against the thesis's settings."""

import dataclasses

import keras
import numpy as np
import pytest

from model.baselines import LinearBaselines
from model.head_inputs import Division, HeadInputs
from model.head_network import initial_layers
from model.head_settings import HeadSettings
from model.heads import Diverged, test_metrics, train_head
from model.learning_rate import learning_rates
from model.saved_head import keras_head
from model.thesis import REPORTED, SETUPS

test_metrics.__test__ = False
NUM_CLASSES = 3
BASE = dataclasses.replace(SETUPS["setup3"], hidden_units=(16, 8), batch_size=20, epochs=4)


def collection(num_clips, shape=(2, 2, 30), seed=0, signal=1.5):
    """Features and labels of three classes that are neither trivial nor hopeless."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, num_clips)
    centres = np.random.default_rng(99).normal(size=(NUM_CLASSES, *shape))
    return (centres[labels] * signal + rng.normal(size=(num_clips, *shape)) * 2 + 3).astype(np.float16), labels


def inputs_of(num_train, *, settings=BASE, num_validation=30, num_test=25, num_variants=0, num_classes=NUM_CLASSES,
              signal=1.5):  # fmt: skip
    features, labels = collection(num_train * (1 + num_variants) + num_validation + num_test, signal=signal)
    for variant in range(1, num_variants + 1):
        labels[variant * num_train : (variant + 1) * num_train] = labels[:num_train]
    rows = np.split(np.arange(len(labels)), np.cumsum([num_train * (1 + num_variants), num_validation]))
    return HeadInputs(features, labels, Division(*rows, num_variants=num_variants), num_classes=num_classes,
                      pooling=settings.pooling, standardise=settings.standardise)  # fmt: skip


class KerasFit:
    """The same training by keras.Model.fit, from the same start and in the same batch order."""

    def __init__(self, inputs, settings, seed):
        regularizer = keras.regularizers.L2(settings.l2) if settings.l2 else None
        self.model = keras.Sequential([keras.Input((inputs.num_values,))])
        for units in settings.hidden_units:
            self.model.add(keras.layers.Dense(units, activation="relu", kernel_regularizer=regularizer))
        self.model.add(keras.layers.Dense(NUM_CLASSES, activation="softmax", kernel_regularizer=regularizer))
        start = initial_layers(settings, seed, inputs.num_values, NUM_CLASSES)
        self.model.set_weights([array for layer in start for array in layer])
        num_clips = inputs.division.num_train_clips
        rate = self._schedule(settings, -(-num_clips // settings.batch_size))
        optimizer = (
            keras.optimizers.Adam(rate)
            if settings.optimizer == "adam"
            else keras.optimizers.SGD(rate, settings.momentum, settings.nesterov)
        )
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
        self.model.compile(optimizer, loss, metrics=["accuracy"])
        labels = inputs.labels["train"]
        weights = None
        if settings.class_weights == "balanced":
            counts = np.bincount(labels[:num_clips])
            weights = {index: num_clips / (NUM_CLASSES * count) for index, count in enumerate(counts)}
        values, targets = inputs.values("train"), np.eye(NUM_CLASSES, dtype=np.float32)[labels]
        order = np.random.default_rng([seed, 1_000_000])
        self.history = []
        for _ in range(settings.epochs):
            rows = inputs.epoch_order(order)
            fitted = self.model.fit(
                values[rows], targets[rows], settings.batch_size, shuffle=False, verbose=0, class_weight=weights
            )
            self.history.append({name: of_epochs[0] for name, of_epochs in fitted.history.items()})

    @staticmethod
    def _schedule(settings, batches_per_epoch):
        schedules = keras.optimizers.schedules
        if settings.learning_rate_rule == "inverse_time":
            return schedules.InverseTimeDecay(settings.learning_rate, 1, settings.decay_rate)
        if settings.learning_rate_rule == "constant":
            return settings.learning_rate
        warmup = round(settings.warmup_epochs * batches_per_epoch)
        rest = settings.epochs * batches_per_epoch - warmup
        if not warmup:
            return schedules.CosineDecay(settings.learning_rate, rest)
        return schedules.CosineDecay(0.0, rest, warmup_target=settings.learning_rate, warmup_steps=warmup)


CHANGES = {
    "the base": {},
    "nesterov": {"nesterov": True},
    "no momentum": {"momentum": 0.0},
    "momentum": {"momentum": 0.5},
    "decay": {"decay_rate": 0.1},
    "one hidden layer": {"hidden_units": (12,)},
    "no hidden layer": {"hidden_units": ()},
    "other units": {"hidden_units": (16, 9)},
    "batch": {"batch_size": 30},
    "batch of one": {"batch_size": 1, "epochs": 2, "learning_rate": 0.01},
    "batch of all": {"batch_size": 1000},
    "epochs": {"epochs": 2},
    "learning rate": {"learning_rate": 0.02},
    "constant": {"learning_rate_rule": "constant", "decay_rate": 0.0, "learning_rate": 0.005},
    "cosine": {"learning_rate_rule": "cosine", "decay_rate": 0.0, "learning_rate": 0.01},
    "warm-up": {"learning_rate_rule": "cosine", "decay_rate": 0.0, "learning_rate": 0.01, "warmup_epochs": 1.5},
    "l2": {"l2": 0.02},
    "l2, nesterov": {"l2": 0.02, "nesterov": True},
    "adam": {"optimizer": "adam", "momentum": 0.0, "learning_rate": 0.01},
    "adam, l2": {"optimizer": "adam", "momentum": 0.0, "learning_rate": 0.01, "l2": 0.02},
    "class weights": {"class_weights": "balanced"},
    "label smoothing": {"label_smoothing": 0.2},
    "pooling": {"pooling": "average"},
    "as they are": {"standardise": False, "learning_rate": 0.01},
}


@pytest.mark.parametrize("num_clips", [50, 170], ids=["in the span", "direct"])  # against 120 values
@pytest.mark.parametrize("change", CHANGES)
def test_takes_the_same_way_as_keras_fit(change, num_clips):
    settings = dataclasses.replace(BASE, **CHANGES[change])
    inputs = inputs_of(num_clips, settings=settings)
    assert inputs.in_span == (num_clips < (30 if settings.pooling == "average" else 120))
    head, theirs = train_head(inputs, settings, seed=7), KerasFit(inputs, settings, seed=7)
    for ours, keras_says in zip(head.history, theirs.history, strict=True):
        assert ours["train_accuracy"] == pytest.approx(keras_says["accuracy"], abs=1e-6)
        if not settings.l2:  # Keras adds the penalty to what it reports
            assert ours["train_loss"] == pytest.approx(keras_says["loss"], rel=1e-3)
    for part in ("validation", "test"):
        expected = theirs.model.predict(inputs.values(part), verbose=0)
        np.testing.assert_allclose(head.probabilities[part], expected, atol=1e-3)
    for ours, expected in zip([array for layer in head.make_layers() for array in layer], theirs.model.get_weights()):
        np.testing.assert_allclose(ours, expected, atol=1e-3)


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "the base"])
def test_no_setting_is_ignored(change):
    inputs = inputs_of(50)
    changed = dataclasses.replace(BASE, **CHANGES[change])
    answers = train_head(inputs, BASE, seed=7).probabilities["test"]
    others = train_head(inputs_of(50, settings=changed), changed, seed=7).probabilities["test"]
    assert np.abs(answers - others).max() > 1e-3


def test_dropout_leaves_out_a_part_and_makes_up_for_it():
    """One batch, by hand: the masks are those of the seed, and Keras's gradients of the masked network agree."""
    import tensorflow as tf

    settings = dataclasses.replace(BASE, dropout=0.4, batch_size=1000, epochs=1, momentum=0.0)
    inputs = inputs_of(50)
    head = train_head(inputs, settings, seed=3)
    variables = [tf.Variable(a) for layer in initial_layers(settings, 3, inputs.num_values, 3) for a in layer]
    order = inputs.epoch_order(np.random.default_rng([3, 1_000_000]))
    masks = np.random.default_rng([3, 2_000_000])
    with tf.GradientTape() as tape:
        outputs = tf.constant(inputs.values("train", order))
        for depth, units in enumerate(settings.hidden_units):
            outputs = tf.nn.relu(outputs @ variables[2 * depth] + variables[2 * depth + 1])
            kept = masks.random((50, units), np.float32) >= np.float32(0.4)
            assert 0.5 < kept.mean() < 0.7
            outputs = outputs * kept.astype(np.float32) / 0.6
        logits = outputs @ variables[-2] + variables[-1]
        truth = inputs.labels["train"][order]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits))
    assert head.history[0]["train_loss"] == pytest.approx(float(loss), rel=1e-5)
    gradients = tape.gradient(loss, variables)
    for ours, variable, gradient in zip([a for layer in head.make_layers() for a in layer], variables, gradients):
        np.testing.assert_allclose(ours, variable - settings.learning_rate * gradient, atol=1e-5)


def test_the_learning_rate_is_the_theses_at_every_batch():
    """832 clips in batches of 20 and 30, 50 epochs: batch by batch, and each batch is trained with its own."""
    for name, batches_per_epoch in {"setup1": 42, "setup2": 42, "setup3": 28, "setup4": 28}.items():
        rates = learning_rates(SETUPS[name], batches_per_epoch)
        assert len(rates) == 50 * batches_per_epoch
        for t, rate in enumerate(rates):
            assert rate == pytest.approx(0.045 / (1 + 0.9 * t), rel=1e-12)
    settings = dataclasses.replace(SETUPS["setup1"], hidden_units=(), momentum=0.0, epochs=2)
    inputs = inputs_of(50)  # 3 batches of 20, 20 and 10
    order_rng = np.random.default_rng([5, 1_000_000])
    ((kernel, bias),) = initial_layers(settings, 5, inputs.num_values, NUM_CLASSES)
    kernel, bias, t = kernel.astype(np.float64), bias.astype(np.float64), 0
    for _ in range(2):
        order = inputs.epoch_order(order_rng)
        assert sorted(order) == list(range(50))
        for batch in np.split(order, [20, 40]):
            values, truth = inputs.values("train", batch), inputs.labels["train"][batch]
            exponentials = np.exp(values @ kernel + bias)
            delta = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(NUM_CLASSES)[truth]
            kernel -= 0.045 / (1 + 0.9 * t) * values.T @ delta / len(batch)
            bias -= 0.045 / (1 + 0.9 * t) * delta.mean(axis=0)
            t += 1
    head = train_head(inputs, settings, seed=5)
    np.testing.assert_allclose(head.make_layers()[0][0], kernel, atol=1e-4)
    assert [metrics["learning_rate"] for metrics in head.history] == pytest.approx([0.045 / 2.8, 0.045 / 5.5])


def test_setups_are_the_theses():
    table = {name: (s.hidden_units, s.momentum, s.nesterov, s.batch_size, s.epochs) for name, s in SETUPS.items()}
    assert table == {
        "setup1": ((512,), 0.9, False, 20, 50),
        "setup2": ((512,), 0.9, True, 20, 50),
        "setup3": ((1024, 512), 0.9, False, 30, 50),
        "setup4": ((1024, 512), 0.9, True, 30, 50),
    }
    plain = {(s.learning_rate, s.decay_rate, s.learning_rate_rule, s.optimizer, s.dropout, s.l2, s.label_smoothing,
              s.class_weights, s.early_stopping_patience) for s in SETUPS.values()}  # fmt: skip
    assert plain == {(0.045, 0.9, "inverse_time", "sgd", 0.0, 0.0, 0.0, "none", 0)}
    assert [r.test_accuracy for r in REPORTED.values()] == [0.77, 0.74, 0.77, 0.80]


def test_early_stopping_takes_the_best_epochs_weights():
    settings = dataclasses.replace(BASE, epochs=200, decay_rate=0.0, early_stopping_patience=3)
    inputs = inputs_of(50, signal=0.3)  # so little that it learns the noise by heart
    head = train_head(inputs, settings, seed=1)
    losses = [metrics["validation_loss"] for metrics in head.history]
    assert head.epoch == np.argmin(losses) + 1 == len(losses) - 3 < 200
    loss = test_metrics(head.probabilities["validation"], inputs.labels["validation"])["loss"]
    assert loss == pytest.approx(min(losses), rel=1e-6)
    shorter = dataclasses.replace(settings, epochs=head.epoch, early_stopping_patience=0)
    for ours, theirs in zip(head.make_layers(), train_head(inputs, shorter, seed=1).make_layers()):
        np.testing.assert_array_equal(ours[0], theirs[0])
    with pytest.raises(ValueError, match="needs validation clips"):
        train_head(inputs_of(50, num_validation=0), settings, seed=1)


def test_each_epoch_takes_each_clip_once_as_itself_or_as_a_variant():
    inputs = inputs_of(40, num_variants=2)
    rng = np.random.default_rng(0)
    orders = [inputs.epoch_order(rng) for _ in range(30)]
    assert all(sorted(order % 40) == list(range(40)) for order in orders)
    assert np.bincount(np.concatenate(orders) // 40) == pytest.approx([400, 400, 400], rel=0.15)
    head, theirs = train_head(inputs, BASE, seed=2), KerasFit(inputs, BASE, seed=2)
    np.testing.assert_allclose(
        head.probabilities["test"], theirs.model.predict(inputs.values("test"), verbose=0), atol=1e-3
    )


def test_large_features_change_places_within_runs(monkeypatch):
    from model import head_inputs

    inputs = inputs_of(100)
    monkeypatch.setattr(head_inputs, "_RUN_BYTES", 30 * 120 * 2)
    order = inputs.epoch_order(np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    runs = [run // 30 for run in order]
    assert [runs[0], *(b for a, b in zip(runs, runs[1:]) if a != b)] != [0, 1, 2, 3] and len(set(runs)) == 4
    assert sum(a != b for a, b in zip(runs, runs[1:])) == 3  # one run after the other
    assert any(np.diff(order[:20]) < 0)


def test_features_mapped_from_a_file_give_the_same_heads(tmp_path):
    features, labels = collection(250)
    division = Division(np.arange(170), np.arange(170, 200), np.arange(200, 250))
    mapped = np.memmap(tmp_path / "features", np.float16, "w+", shape=features.shape)
    mapped[:] = features
    heads = [
        train_head(HeadInputs(values, labels, division, num_classes=3, pooling="none", standardise=True), BASE, seed=0)
        for values in (features, np.memmap(tmp_path / "features", np.float16, "r", shape=features.shape))
    ]
    np.testing.assert_array_equal(*(head.probabilities["test"] for head in heads))


@pytest.mark.parametrize("pooling, standardise", [("none", True), ("average", True), ("none", False)])
def test_the_saved_head_takes_features_as_stored(pooling, standardise, tmp_path):
    settings = dataclasses.replace(BASE, pooling=pooling, standardise=standardise, learning_rate=0.01)
    inputs = inputs_of(50, settings=settings)
    head = train_head(inputs, settings, seed=0)
    keras_head(inputs, head).save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras", safe_mode=True)
    features, _ = collection(105)
    answers = loaded.predict(features[80:].astype(np.float32), verbose=0)
    np.testing.assert_allclose(answers, head.probabilities["test"], atol=1e-4)


def test_seeds_repeat_and_differ():
    inputs = inputs_of(60)
    first, again, other = (train_head(inputs, BASE, seed=seed) for seed in (3, 3, 4))
    assert first.history == again.history != other.history
    for one, two in zip(first.make_layers(), again.make_layers()):
        np.testing.assert_array_equal(one[0], two[0])


def test_what_can_not_be_trained_is_refused():
    features, labels = collection(60)
    features[33, 0, 0, 0] = np.nan
    division = Division(np.arange(30), np.arange(30, 40), np.arange(40, 60))
    with pytest.raises(ValueError, match=r"clip 33 \(validation\) are not finite"):
        HeadInputs(features, labels, division, num_classes=3, pooling="none", standardise=True)
    with pytest.raises(ValueError, match="class number 3 .* has no training clip"):
        inputs_of(50, num_classes=4)
    with pytest.raises(Diverged, match="loss is .* in epoch 1: lower the learning rate"):
        train_head(inputs_of(50), dataclasses.replace(BASE, learning_rate=1e5, decay_rate=0.0), seed=0)


def test_baselines_equal_scikit_learn_on_all_values():
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    features, labels = collection(100)
    flat = features.reshape(100, -1).astype(np.float64)
    scaler = StandardScaler().fit(flat[:60])
    train, test = scaler.transform(flat[:60]), scaler.transform(flat[60:])
    plain = LogisticRegression(max_iter=1000).fit(train, labels[:60])
    ours = LinearBaselines(flat[:60], labels[:60], num_classes=3)
    np.testing.assert_allclose(ours.logistic(flat[60:]), plain.predict_proba(test), atol=1e-2)
    theirs = RidgeClassifierCV(np.logspace(-2, 6, 17)).fit(train, labels[:60])
    assert (ours.ridge(flat[60:]) == theirs.predict(test)).mean() > 0.97


def test_settings_say_what_is_wrong():
    for change, message in [
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"optimizer": "sdg"}, "optimizer must be one of sgd, adam"),
        ({"optimizer": "adam"}, "momentum=0.9 has no meaning with optimizer='adam'"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite, got nan"),
        ({"hidden_units": (0,)}, "hidden_units must be whole numbers from 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(BASE, **change)
    assert isinstance(BASE, HeadSettings)
