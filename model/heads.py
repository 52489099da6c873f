"""Trains a head: fully connected ReLU layers and a softmax on cached features, on one core, without TensorFlow.

The arithmetic is Keras's (tests compare each setting with keras.Model.fit), with none of its cost for each batch; so
many heads train side by side on the cores of a machine, each exactly as it would alone.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from model.head_inputs import PARTS, HeadInputs
from model.head_network import HeadNetwork
from model.head_settings import HeadSettings
from model.learning_rate import learning_rates

_SMALLEST_PROBABILITY = 1e-7  # as Keras clips it, so that one wrong answer gives no endless loss


class Diverged(ValueError):
    """The loss is no finite number any more; a lower learning rate helps. Tells how many epochs went well before."""

    def __init__(self, message: str, num_epochs: int):
        super().__init__(message)
        self.num_epochs = num_epochs


class Stopped(Exception):
    """Training was asked to stop; nothing of it is kept."""


@dataclasses.dataclass(frozen=True)
class TrainedHead:
    """A head and how it came to be.

    Attributes:
      make_layers: gives, for each layer, kernel float32 [values or units, units] and bias [units], for standardised
        features; the first kernel takes a moment to make, and up to 57 MB.
      history: for each epoch: epoch (from 1), learning_rate (of its last batch), train_loss and train_accuracy (over
        its batches while they were trained, as Keras reports them, without L2), and validation_loss and
        validation_accuracy where there are such clips.
      epoch: the one whose weights these are, from 1.
      probabilities: part to float32 [clips, classes], of validation, test and other.
    """

    make_layers: Callable[[], list[tuple[np.ndarray, np.ndarray]]]
    history: list[dict[str, float]]
    epoch: int
    probabilities: dict[str, np.ndarray]


def train_head(
    inputs: HeadInputs,
    settings: HeadSettings,
    *,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedHead:
    """Train one head; the same inputs, settings and seed give the same bits.

    Args:
      inputs: made with the settings' pooling and standardisation.
      seed: of the start, the order of the clips in each epoch, the variants taken and dropout.
      on_epoch: is told each epoch's metrics.
      should_stop: asked before each epoch.
    Raises:
      Diverged: the loss is not finite; names the epoch.
      Stopped: should_stop said so.
      ValueError: early stopping without validation clips.
    """
    patience = settings.early_stopping_patience
    if patience and not len(inputs.division.validation):
        raise ValueError("early_stopping_patience needs validation clips, and there are none: set it to 0")
    network = HeadNetwork(inputs, settings, seed)
    order_rng = np.random.default_rng([seed, 1_000_000])
    num_clips = inputs.division.num_train_clips
    starts = range(0, num_clips, settings.batch_size)
    rates = iter(learning_rates(settings, len(starts)))
    history, best = [], None
    for epoch in range(1, settings.epochs + 1):
        if should_stop():
            raise Stopped
        order = inputs.epoch_order(order_rng)
        loss_sum = num_correct = 0
        with np.errstate(all="ignore"):  # divergence is told below
            for start in starts:
                rate = next(rates)
                loss, correct = network.train_batch(order[start : start + settings.batch_size], rate)
                loss_sum, num_correct = loss_sum + loss, num_correct + correct
            metrics = {
                "epoch": epoch,
                "learning_rate": float(rate),
                "train_loss": loss_sum / num_clips,
                "train_accuracy": num_correct / num_clips,
            }
            if len(inputs.division.validation):
                answers, labels = network.probabilities("validation"), inputs.labels["validation"]
                metrics["validation_loss"] = cross_entropy(answers, labels)
                metrics["validation_accuracy"] = float((answers.argmax(axis=1) == labels).mean())
        for name in ("train_loss", "validation_loss"):
            if not np.isfinite(metrics.get(name, 0.0)):
                raise Diverged(f"the {name} is {metrics[name]} in epoch {epoch}: lower the learning rate", epoch - 1)
        history.append(metrics)
        on_epoch(metrics)
        if patience:
            if best is None or metrics["validation_loss"] < best[0]:
                best = metrics["validation_loss"], epoch, network.state()
            elif epoch - best[1] >= patience:
                break
    if best is not None:
        network.restore(best[2])
    with np.errstate(all="ignore"):
        probabilities = {part: network.probabilities(part) for part in PARTS[1:]}
    if not all(np.isfinite(answers).all() for answers in probabilities.values()):
        raise Diverged(f"the weights are no finite numbers after epoch {epoch}: lower the learning rate", epoch)
    return TrainedHead(
        make_layers=network.layers,
        history=history,
        epoch=best[1] if best else len(history),
        probabilities=probabilities,
    )


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of probabilities [n, classes] for labels [n]."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_truth, _SMALLEST_PROBABILITY)).mean(dtype=np.float64))


def test_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Loss (mean cross-entropy), accuracy, and the confusion matrix (rows: truth, columns: answer) of a test."""
    num_classes = probabilities.shape[1]
    answers = probabilities.argmax(axis=1)
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (labels, answers), 1)
    return {
        "loss": cross_entropy(probabilities, labels),
        "accuracy": float((answers == labels).mean()),
        "confusion": confusion.tolist(),
    }
