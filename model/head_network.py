"""The layers of one head in training: forward, backward, and the optimizer's step, a batch at a time."""

import numpy as np

from model.first_layer import DirectLayer, SpanLayer
from model.head_inputs import HeadInputs
from model.head_optimizers import Sgd, optimizer_of
from model.head_settings import HeadSettings


def initial_layers(
    settings: HeadSettings, seed: int, num_values: int, num_classes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels and biases at the start: Glorot-uniform (Keras's default) from the seed, and zero."""
    layers, width = [], num_values
    for depth, units in enumerate([*settings.hidden_units, num_classes]):
        limit = np.sqrt(6.0 / (width + units))
        kernel = np.random.default_rng([seed, depth]).random((width, units), np.float32)
        kernel *= np.float32(2 * limit)
        kernel -= np.float32(limit)
        layers.append((kernel, np.zeros(units, np.float32)))
        width = units
    return layers


class HeadNetwork:
    """A head at some point of its training. Dropout's masks come from the seed, a batch after the other."""

    def __init__(self, inputs: HeadInputs, settings: HeadSettings, seed: int):
        self._inputs, self._settings = inputs, settings
        self._optimizer = optimizer_of(settings)
        start = initial_layers(settings, seed, inputs.num_values, inputs.num_classes)
        first = SpanLayer if inputs.in_span and isinstance(self._optimizer, Sgd) else DirectLayer
        self._first = first(inputs, start[0][0], self._optimizer, settings.l2)
        self._kernels = [kernel for kernel, _ in start[1:]]  # of the layers after the first
        self._biases = [bias for _, bias in start]
        self._kernel_slots = [self._optimizer.slots(kernel) for kernel in self._kernels]
        self._bias_slots = [self._optimizer.slots(bias) for bias in self._biases]
        self._dropout_rng = np.random.default_rng([seed, 2_000_000])
        self._targets, self._weights = _targets(inputs, settings)
        self._t = 0

    def train_batch(self, batch: np.ndarray, rate: float) -> tuple[float, int]:
        """One step on the training clips at these positions; returns the sum of their losses, and how many were right.

        As Keras has it, the loss is divided by the number of clips, whatever their weights.
        """
        self._t += 1
        values, active = [], []  # of each layer after the first: its inputs, and what let them through
        outputs = self._first.forward(batch)
        for bias, kernel in zip(self._biases, self._kernels):  # ends before the last bias
            outputs += bias
            through = (outputs > 0).astype(np.float32)
            if self._settings.dropout:
                kept = self._dropout_rng.random(outputs.shape, np.float32) >= np.float32(self._settings.dropout)
                through *= kept * np.float32(1 / (1 - self._settings.dropout))
            outputs *= through
            values.append(outputs)
            active.append(through)
            outputs = outputs @ kernel
        outputs += self._biases[-1]

        probabilities, log_probabilities = _softmax(outputs)
        truth = batch % self._inputs.division.num_train_clips  # of a variant: its clip
        targets, weights = self._targets[truth], self._weights[truth]
        losses = -(targets * log_probabilities).sum(axis=1) * weights
        num_correct = int((outputs.argmax(axis=1) == self._inputs.labels["train"][truth]).sum())
        delta = probabilities - targets
        delta *= (weights / np.float32(len(batch)))[:, np.newaxis]
        self._step_back(batch, delta, values, active, rate)
        return float(losses.sum(dtype=np.float64)), num_correct

    def _step_back(self, batch, delta, values, active, rate) -> None:
        for depth in reversed(range(len(self._kernels))):
            kernel = self._kernels[depth]
            gradient = values[depth].T @ delta
            if self._settings.l2:
                gradient += np.float32(2 * self._settings.l2) * kernel
            flows_back = delta @ kernel.T
            flows_back *= active[depth]
            self._step_bias(depth + 1, delta, rate)
            self._optimizer.update(kernel, gradient, self._kernel_slots[depth], rate, self._t)
            delta = flows_back
        self._step_bias(0, delta, rate)
        self._first.step(batch, delta, rate, self._t)

    def _step_bias(self, depth: int, delta: np.ndarray, rate: float) -> None:
        self._optimizer.update(self._biases[depth], delta.sum(axis=0), self._bias_slots[depth], rate, self._t)

    def probabilities(self, part: str) -> np.ndarray:
        """float32 [n, classes] of all clips of a part, without dropout."""
        outputs = self._first.outputs(part)
        for bias, kernel in zip(self._biases, self._kernels):
            outputs = np.maximum(outputs + bias, 0) @ kernel
        return _softmax(outputs + self._biases[-1])[0]

    def state(self) -> list[np.ndarray]:
        """A copy of all parameters (not of the optimizer's slots)."""
        return [parameter.copy() for parameter in self._parameters()]

    def restore(self, state: list[np.ndarray]) -> None:
        """Take the parameters of a `state`."""
        for parameter, value in zip(self._parameters(), state, strict=True):
            parameter[...] = value

    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of each layer, for standardised features."""
        return list(zip([self._first.kernel(), *self._kernels], self._biases))

    def _parameters(self) -> list[np.ndarray]:
        return [*self._first.parameters(), *self._kernels, *self._biases]


def _targets(inputs: HeadInputs, settings: HeadSettings) -> tuple[np.ndarray, np.ndarray]:
    """What each training clip's probabilities should be, float32 [n, classes], and its weight, float32 [n]."""
    labels = inputs.labels["train"][: inputs.division.num_train_clips]
    smoothing, num_classes = settings.label_smoothing, inputs.num_classes
    targets = np.full((len(labels), num_classes), smoothing / num_classes, np.float32)
    targets[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    weights = np.ones(len(labels), np.float32)
    if settings.class_weights == "balanced":
        counts = np.bincount(labels, minlength=num_classes)
        weights = (len(labels) / (num_classes * counts))[labels].astype(np.float32)
    return targets, weights


def _softmax(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and their logarithms."""
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    return exponentials / sums, shifted - np.log(sums)
