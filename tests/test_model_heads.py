"""Heads against Keras's own fit, and against the thesis's settings."""

import dataclasses

import keras
import numpy as np
import pytest

from model.baselines import logistic_regression
from model.heads import Examples, HeadTrainer
from model.heads import test_metrics as metrics_of
from model.thesis import REPORTED, SETUPS


def features(num_clips, shape=(2, 2, 30), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_clips)
    centres = np.random.default_rng(99).normal(size=(3, *shape))
    return Examples((centres[labels] + rng.normal(size=(num_clips, *shape)) * 2 + 3).astype(np.float16), labels)


def keras_fit(trainer, settings, examples, orders, start):
    """The same training by keras.Model.fit on the standardised features, batch orders given."""
    inputs = trainer.standardiser(examples.flat)
    model = keras.Sequential([keras.Input(inputs.shape[1:])])
    for depth, units in enumerate([*settings.hidden_units, 3]):
        model.add(keras.layers.Dense(units, activation="relu" if depth < len(settings.hidden_units) else "softmax"))
    model.set_weights(start)
    rate = keras.optimizers.schedules.InverseTimeDecay(settings.learning_rate, 1, settings.decay_rate)
    model.compile(keras.optimizers.SGD(rate, settings.momentum, settings.nesterov), "sparse_categorical_crossentropy",
                  metrics=["accuracy"])  # fmt: skip
    history = []
    for order in orders:
        fitted = model.fit(
            inputs[order], examples.labels[order], batch_size=settings.batch_size, shuffle=False, verbose=0
        )
        history.append({name: values[0] for name, values in fitted.history.items()})
    return model, history


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("num_clips", [50, 170])  # against 120 values: with and without the span
def test_takes_the_same_way_as_keras_fit(num_clips, nesterov):
    settings = dataclasses.replace(SETUPS["setup3"], hidden_units=(16, 8), nesterov=nesterov, batch_size=20, epochs=4)
    train, validation = features(num_clips), features(30, seed=1)
    trainer = HeadTrainer(train, validation, num_classes=3, standardise=True)
    seed = 7
    head = trainer.train(settings, seed=seed)
    start = []
    for depth, (rows, columns) in enumerate([(120, 16), (16, 8), (8, 3)]):
        start += [keras.initializers.GlorotUniform(seed=seed * 1000 + depth)((rows, columns)), np.zeros(columns)]
    rng = np.random.default_rng([seed, 1])
    model, history = keras_fit(trainer, settings, train, [rng.permutation(num_clips) for _ in range(4)], start)
    for ours, theirs in zip(head.history, history):
        assert ours["train_loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["train_accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)
    values = trainer.standardiser(validation.flat)
    np.testing.assert_allclose(head.probabilities(validation.features), model.predict(values, verbose=0), atol=2e-4)
    loss = metrics_of(model.predict(values, verbose=0), validation.labels)["loss"]
    assert head.history[-1]["validation_loss"] == pytest.approx(loss, rel=1e-3)


def test_the_learning_rate_is_the_theses_at_every_batch():
    settings = dataclasses.replace(SETUPS["setup1"], hidden_units=(4,), epochs=3)
    head = HeadTrainer(features(50), None, num_classes=3, standardise=True).train(settings, seed=0)
    for metrics in head.history:  # 50 clips in batches of 20 are 3 batches
        t = 3 * metrics["epoch"] - 1
        assert metrics["learning_rate"] == pytest.approx(0.045 / (1 + 0.9 * t), rel=1e-6)


def test_setups_are_the_theses():
    table = {name: (s.hidden_units, s.momentum, s.nesterov, s.batch_size, s.epochs) for name, s in SETUPS.items()}
    assert table == {
        "setup1": ((512,), 0.9, False, 20, 50),
        "setup2": ((512,), 0.9, True, 20, 50),
        "setup3": ((1024, 512), 0.9, False, 30, 50),
        "setup4": ((1024, 512), 0.9, True, 30, 50),
    }
    assert {(s.learning_rate, s.decay_rate) for s in SETUPS.values()} == {(0.045, 0.9)}
    assert [r.test_accuracy for r in REPORTED.values()] == [0.77, 0.74, 0.77, 0.80]


def test_statistics_travel_with_the_head(tmp_path):
    train, test = features(60), features(20, seed=1)
    settings = dataclasses.replace(SETUPS["setup1"], hidden_units=(8,), epochs=2)
    standardised = HeadTrainer(train, None, num_classes=3, standardise=True).train(settings, seed=0)
    standardised.model.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras", safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(test.features.astype(np.float32), verbose=0),
        standardised.probabilities(test.features),
        atol=1e-6,
    )
    mean = loaded.get_layer("standardise").mean
    np.testing.assert_allclose(np.ravel(mean), train.flat.astype(np.float64).mean(axis=0), rtol=1e-5)
    as_they_are = HeadTrainer(train, None, num_classes=3, standardise=False).train(settings, seed=0)
    assert not np.ravel(as_they_are.model.get_layer("standardise").mean).any()


def test_seeds_repeat_and_differ():
    settings = dataclasses.replace(SETUPS["setup1"], hidden_units=(8,), epochs=2)
    trainer = HeadTrainer(features(60), features(20, seed=1), num_classes=3, standardise=True)
    first, again, other = (trainer.train(settings, seed=seed) for seed in (3, 3, 4))
    assert first.history == again.history != other.history
    for one, two in zip(first.model.get_weights(), again.model.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_bad_features_are_refused():
    broken = features(30)
    broken.features[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        HeadTrainer(broken, None, num_classes=3, standardise=True)
    with pytest.raises(ValueError, match="class number 3 has no training clip"):
        HeadTrainer(features(30), None, num_classes=4, standardise=True)


def test_logistic_regression_equals_scikit_learn_on_all_values():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, test = features(60), features(40, seed=1)
    scaler = StandardScaler().fit(train.flat.astype(np.float64))
    plain = LogisticRegression(max_iter=1000).fit(scaler.transform(train.flat), train.labels)
    np.testing.assert_allclose(
        logistic_regression(train, test, num_classes=3), plain.predict_proba(scaler.transform(test.flat)), atol=1e-2
    )
