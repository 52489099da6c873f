"""SGD and Adam on NumPy arrays, in place: the updates of keras.optimizers, without their cost for each call.

An optimizer keeps nothing itself; its slots stand beside each parameter, so that a part of a parameter can be updated
with the same part of its slots.
"""

import dataclasses

import numpy as np

from model.head_settings import HeadSettings


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum as Keras does it: m = momentum m - rate g, then p += m (Nesterov: one step on)."""

    momentum: float
    nesterov: bool

    def slots(self, parameter: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.zeros_like(parameter),) if self.momentum else ()

    def update(self, parameter, gradient, slots, rate: float, t: int) -> None:
        """One step; overwrites `gradient`. t counts batches from 1 (of no use here)."""
        self.update_rows(parameter, slice(None), gradient, slots, rate)

    def update_rows(self, parameter, rows, gradient, slots, rate: float) -> None:
        """One step where the gradient is zero but in `rows`, each named once; overwrites `gradient`."""
        gradient *= np.float32(rate)
        if not self.momentum:
            parameter[rows] -= gradient
            return
        (velocity,) = slots
        velocity *= np.float32(self.momentum)
        velocity[rows] -= gradient
        if self.nesterov:
            parameter += np.float32(self.momentum) * velocity
            parameter[rows] -= gradient
        else:
            parameter += velocity


@dataclasses.dataclass(frozen=True)
class Adam:
    """Kingma and Ba (2014), as keras.optimizers.Adam with its defaults."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def slots(self, parameter: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.zeros_like(parameter), np.zeros_like(parameter)

    def update(self, parameter, gradient, slots, rate: float, t: int) -> None:
        """One step; overwrites `gradient`. t counts batches from 1."""
        mean, square = slots
        alpha = np.float32(rate * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t))
        mean += (gradient - mean) * np.float32(1 - self.beta_1)
        gradient *= gradient
        gradient -= square
        gradient *= np.float32(1 - self.beta_2)
        square += gradient
        np.sqrt(square, out=gradient)
        gradient += np.float32(self.epsilon)
        np.divide(mean, gradient, out=gradient)
        gradient *= alpha
        parameter -= gradient


def optimizer_of(settings: HeadSettings) -> Sgd | Adam:
    return Adam() if settings.optimizer == "adam" else Sgd(settings.momentum, settings.nesterov)
