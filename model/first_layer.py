"""The first layer of a head, in which nearly all of the work lies: 13,824 values to a thousand units.

Plain training reads and writes kernel and velocity (57 MB each) for every batch of 20 clips. But the gradient of a
kernel is a sum of its inputs x_i, each times what flows back to it, so that all the way

    kernel = scale * start + inputs' * coefficients        [values, units] = [values, clips] [clips, units]

Momentum, Nesterov's too, and L2 are linear, so that they act on scale and coefficients as they act on the kernel. A
batch needs only the inner products of its clips with all training clips (the Gram matrix, made once for all heads) and
its clips' outputs by the start: scale * (x_b start) + gram_b coefficients. Its gradient is what flows back, in the
rows of the batch. This is the kernel trick on one layer of a network, and exact; SpanLayer does it where there are
fewer training clips than values, at clips / (2 values) of the arithmetic.

DirectLayer is plain training: for more clips than values, and for Adam, which scales each value on its own and so
leaves the span. (Doing the above for some batches at a time, and folding the coefficients into the kernel, was tried
for many clips: it took 1.15 times the processor time of plain training.)
"""

import numpy as np

from model.head_inputs import HeadInputs
from model.head_optimizers import Adam, Sgd

_VALUES_AT_ONCE = 1 << 17  # of a kernel: what is written is still in a core's own cache when it is read again


class SpanLayer:
    """A first layer without a kernel, for SGD and fewer training clips than values."""

    def __init__(self, inputs: HeadInputs, kernel: np.ndarray, optimizer: Sgd, l2: float):
        self._inputs, self._optimizer, self._l2 = inputs, optimizer, np.float32(l2)
        self._start_kernel = kernel
        self._starts = {"train": inputs.project("train", kernel)}
        self._scale = np.ones(1, np.float32)
        self._coefficients = np.zeros((len(inputs.gram["train"]), kernel.shape[1]), np.float32)
        self._slots = optimizer.slots(self._coefficients), optimizer.slots(self._scale)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Outputs before the bias, float32 [n, units], of the training clips at these positions."""
        return self._inputs.gram["train"][batch] @ self._coefficients + self._scale * self._starts["train"][batch]

    def step(self, batch: np.ndarray, delta: np.ndarray, rate: float, t: int) -> None:
        """The optimizer's step on the batch of `forward`; delta [n, units] is the loss's gradient by the outputs.

        Overwrites delta; t counts batches from 1.
        """
        if not self._l2:
            self._optimizer.update_rows(self._coefficients, batch, delta, self._slots[0], rate)
            return
        gradient = 2 * self._l2 * self._coefficients
        gradient[batch] += delta
        self._optimizer.update(self._coefficients, gradient, self._slots[0], rate, t)
        self._optimizer.update(self._scale, 2 * self._l2 * self._scale, self._slots[1], rate, t)

    def parameters(self) -> list[np.ndarray]:
        """All that decides the outputs, to be copied and set back in place."""
        return [self._scale, self._coefficients]

    def outputs(self, part: str) -> np.ndarray:
        """Outputs before the bias of a whole part, float32 [n, units]."""
        if part not in self._inputs.gram:
            return self._inputs.project(part, self.kernel())
        if part not in self._starts:
            self._starts[part] = self._inputs.project(part, self._start_kernel)
        return self._inputs.gram[part] @ self._coefficients + self._scale * self._starts[part]

    def kernel(self) -> np.ndarray:
        """float32 [values, units]."""
        return self._scale * self._start_kernel + self._inputs.values("train").T @ self._coefficients


class DirectLayer:
    """A first layer trained plainly, for any optimizer and any number of clips."""

    def __init__(self, inputs: HeadInputs, kernel: np.ndarray, optimizer: Sgd | Adam, l2: float):
        self._inputs, self._optimizer, self._l2 = inputs, optimizer, np.float32(l2)
        self._kernel = kernel.copy()
        self._slots = optimizer.slots(self._kernel)
        self._values = None

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self._values = self._inputs.values("train", batch)
        return self._values @ self._kernel

    def step(self, batch: np.ndarray, delta: np.ndarray, rate: float, t: int) -> None:
        rows_at_once = max(1, _VALUES_AT_ONCE // self._kernel.shape[1])
        for first in range(0, len(self._kernel), rows_at_once):
            rows = slice(first, first + rows_at_once)
            kernel = self._kernel[rows]
            gradient = self._values[:, rows].T @ delta
            if self._l2:
                gradient += 2 * self._l2 * kernel
            self._optimizer.update(kernel, gradient, tuple(slot[rows] for slot in self._slots), rate, t)

    def parameters(self) -> list[np.ndarray]:
        return [self._kernel]

    def outputs(self, part: str) -> np.ndarray:
        return self._inputs.project(part, self._kernel)

    def kernel(self) -> np.ndarray:
        return self._kernel
