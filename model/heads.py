"""Classification heads on cached features: fully connected ReLU layers and a softmax, trained by SGD from memory."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from model.head_settings import HeadSettings
from model.standardise import Standardiser, span_basis


@dataclasses.dataclass(frozen=True)
class Examples:
    """Features [n, ...] of any shape and float type, labels int [n]."""

    features: np.ndarray
    labels: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        return self.features.reshape(len(self.features), -1)


@dataclasses.dataclass(frozen=True)
class TrainedHead:
    """A head and how it came to be.

    Attributes:
      model: features as stored to probabilities; standardisation is its first layer, so the statistics travel with it.
      history: for each epoch: epoch (from 1), learning_rate (of its last batch), train_loss and train_accuracy (mean
        over its batches, as Keras reports them), and validation_loss, validation_accuracy where there is such a split.
    """

    model: keras.Model
    history: list[dict[str, float]]

    def probabilities(self, features: np.ndarray, batch_size: int = 1024) -> np.ndarray:
        """Features [n, ...] as stored to float32 [n, num_classes]."""
        batches = (features[i : i + batch_size].astype(np.float32) for i in range(0, len(features), batch_size))
        return np.concatenate([self.model(batch, training=False).numpy() for batch in batches])


class HeadTrainer:
    """Trains any number of heads on one set of features, which are standardised and rotated once for all of them."""

    def __init__(self, train: Examples, validation: Examples | None, *, num_classes: int, standardise: bool):
        """Raises ValueError: a feature that is not finite, or a class that no training clip has."""
        for examples in (train, validation):
            if examples is not None and not np.isfinite(examples.features).all():
                raise ValueError("features that are not finite numbers: make the feature dataset again")
        missing = sorted(set(range(num_classes)) - set(train.labels.tolist()))
        if missing:
            raise ValueError(
                f"class number {missing[0]} has no training clip (counting from 0): prepare the clips again"
            )
        self._feature_shape = train.features.shape[1:]
        self._num_classes = num_classes
        self.standardiser = Standardiser.fit(train.flat) if standardise else Standardiser.identity(train.flat.shape[1])
        self._train = self.standardiser(train.flat)
        self._labels = tf.constant(train.labels, tf.int32)
        self._validation = None if validation is None else self.standardiser(validation.flat)
        self._validation_labels = None if validation is None else tf.constant(validation.labels, tf.int32)
        self._basis = span_basis(self._train)
        inputs = self._train if self._basis is None else self._train @ self._basis
        self._inputs = tf.constant(inputs)

    def train(self, settings: HeadSettings, *, seed: int, on_epoch: Callable[[dict], None] = lambda metrics: None):
        """Train one head; returns a TrainedHead. The same seed gives the same weights and batch order.

        Raises:
          ValueError: the loss is not finite; names the epoch.
        """
        layers = self._build_layers(settings, seed)
        first = layers[0].kernel.numpy()
        if self._basis is not None:  # the same layer in the basis's coordinates
            start = self._basis.T @ first
            layers = self._build_layers(settings, seed, num_inputs=len(start))
            layers[0].kernel.assign(start)
        rate = keras.optimizers.schedules.InverseTimeDecay(settings.learning_rate, 1, settings.decay_rate)
        optimizer = keras.optimizers.SGD(rate, momentum=settings.momentum, nesterov=settings.nesterov)
        variables = [variable for layer in layers for variable in layer.trainable_variables]
        optimizer.build(variables)
        run_epoch = self._epoch_function(layers, variables, optimizer, settings.batch_size)

        def full_kernel():
            if self._basis is None:
                return layers[0].kernel.numpy()
            return first + self._basis @ (layers[0].kernel.numpy() - start)

        order = np.random.default_rng([seed, 1])
        history = []
        for epoch in range(1, settings.epochs + 1):
            loss, correct = run_epoch(tf.constant(order.permutation(len(self._train)), tf.int32))
            metrics = {
                "epoch": epoch,
                "learning_rate": float(rate(optimizer.iterations.numpy() - 1)),
                "train_loss": float(loss) / len(self._train),
                "train_accuracy": int(correct) / len(self._train),
            }
            if self._validation is not None:
                hidden = self._validation @ full_kernel() + layers[0].bias.numpy()
                metrics |= _evaluate(layers, hidden, self._validation_labels)
            if not np.isfinite(metrics["train_loss"]):
                raise ValueError(f"the loss is {metrics['train_loss']} in epoch {epoch}: lower the learning rate")
            history.append(metrics)
            on_epoch(metrics)
        return TrainedHead(self._deployable(settings, layers, full_kernel()), history)

    def _build_layers(
        self, settings: HeadSettings, seed: int, num_inputs: int | None = None
    ) -> list[keras.layers.Dense]:
        """Dense layers with Keras's default start, drawn from the seed; the last gives logits."""
        sizes = [*settings.hidden_units, self._num_classes]
        layers = [
            keras.layers.Dense(
                units,
                activation="relu" if depth < len(sizes) - 1 else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed * 1000 + depth),
            )
            for depth, units in enumerate(sizes)
        ]
        width = num_inputs or self._train.shape[1]
        for layer, units in zip(layers, sizes):
            layer.build((None, width))
            width = units
        return layers

    def _epoch_function(self, layers, variables, optimizer, batch_size):
        """One epoch in one call: order int32 [n] to (sum of losses, number right)."""
        inputs, labels = self._inputs, self._labels

        @tf.function(input_signature=[tf.TensorSpec((len(self._train),), tf.int32)])
        def run_epoch(order):
            loss_sum, correct = tf.constant(0.0), tf.constant(0)
            for start in tf.range(0, tf.size(order), batch_size):
                batch = order[start : start + batch_size]
                truth = tf.gather(labels, batch)
                with tf.GradientTape() as tape:
                    values = tf.gather(inputs, batch)
                    for layer in layers:
                        values = layer(values)
                    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, values)
                    loss = tf.reduce_mean(losses)
                optimizer.apply(tape.gradient(loss, variables), variables)
                loss_sum += tf.reduce_sum(losses)
                correct += _num_correct(values, truth)
            return loss_sum, correct

        return run_epoch

    def _deployable(self, settings: HeadSettings, layers, first_kernel: np.ndarray) -> keras.Model:
        shape = self._feature_shape
        variance = np.square(self.standardiser.std, dtype=np.float32)
        model = keras.Sequential(
            [
                keras.Input(shape, name="feature"),
                keras.layers.Flatten(),
                keras.layers.Normalization(mean=self.standardiser.mean, variance=variance, name="standardise"),
            ]
        )
        for depth, layer in enumerate(layers):
            last = depth == len(layers) - 1
            copy = keras.layers.Dense(layer.units, activation="softmax" if last else "relu", name=f"dense_{depth}")
            model.add(copy)
            copy.set_weights([first_kernel if depth == 0 else layer.kernel.numpy(), layer.bias.numpy()])
        return model


def _num_correct(logits, labels):
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == labels, tf.int32))


def _evaluate(layers, first_output: np.ndarray, labels) -> dict[str, float]:
    """Validation metrics, from the first layer's output before its activation."""
    values = layers[0].activation(tf.constant(first_output))
    for layer in layers[1:]:
        values = layer(values)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, values)
    return {
        "validation_loss": float(tf.reduce_mean(losses)),
        "validation_accuracy": int(_num_correct(values, labels)) / len(labels),
    }


def test_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Loss (mean cross-entropy), accuracy, and the confusion matrix (rows: truth, columns: answer) of a test."""
    num_classes = probabilities.shape[1]
    of_truth = probabilities[np.arange(len(labels)), labels]
    answers = probabilities.argmax(axis=1)
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (labels, answers), 1)
    return {
        "loss": float(-np.log(np.maximum(of_truth, 1e-7)).mean()),
        "accuracy": float((answers == labels).mean()),
        "confusion": confusion.tolist(),
    }
