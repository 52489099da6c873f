"""The first layer of a head, in which nearly all of the work lies: 13,824 values to a thousand units.

Plain training reads and writes kernel, gradient and velocity (57 MB each) for every batch of 20 clips, and most of the
time goes there. But the gradient of a kernel is a sum of its inputs x_i, each times what flows back to it. So while
some clips are trained on, in any batches, kernel and velocity stay

    kernel = scale_1 * kernel_0 + scale_2 * velocity_0 + inputs' coefficients      [values, units] = [values, clips] [clips, units]

Momentum, Nesterov's too, and L2 are linear, so that they act on scales and coefficients as they act on the kernel. A
batch needs the inner products of its clips with those clips (the Gram matrix) and their outputs by kernel_0 and
velocity_0; its gradient is what flows back, in the rows of the batch. It is the kernel trick on one layer of a network,
and exact.

SpanLayer does this with all training clips, from the first batch to the last: for fewer clips than values. The Gram
matrix is made once for all heads, and no kernel is touched until the head is done; clips / (2 values) of the arithmetic.
WindowLayer does it with the clips of some batches, and then folds the coefficients into kernel and velocity: twice the
arithmetic of plain training, but in large products, and the kernel is touched once for many batches.
DirectLayer is plain training, for Adam, which scales each value on its own and so leaves the span.
"""

from collections.abc import Sequence

import numpy as np

from model.head_inputs import HeadInputs
from model.head_optimizers import Adam, Sgd

WINDOW_CLIPS = 512
_ROWS_AT_ONCE = 1024  # of a kernel, so that what is written is still in the processor's cache when it is read again


class _Span:
    """Outputs and steps of a layer whose kernel is told by scales and coefficients.

    Args:
      gram: float32 [clips, clips] inner products of the inputs.
      starts: the clips' outputs [clips, units] by the kernel and, where it moves already, by the velocity.
    """

    def __init__(self, gram: np.ndarray, starts: Sequence[np.ndarray], optimizer: Sgd, l2: float):
        self._gram, self._starts, self._optimizer, self._l2 = gram, starts, optimizer, np.float32(l2)
        self.scales = np.zeros(len(starts), np.float32)
        self.scales[0] = 1
        self.scale_slots = optimizer.slots(self.scales)
        if len(starts) > 1:
            self.scale_slots[0][1] = 1  # the velocity is, so far, the velocity
        self.coefficients = np.zeros((len(gram), starts[0].shape[1]), np.float32)
        self.coefficient_slots = optimizer.slots(self.coefficients)

    def forward(self, rows: np.ndarray | slice) -> np.ndarray:
        outputs = self._gram[rows] @ self.coefficients
        for scale, start in zip(self.scales, self._starts):
            outputs += scale * start[rows]
        return outputs

    def step(self, rows: np.ndarray | slice, delta: np.ndarray, rate: float, t: int) -> None:
        if not self._l2:
            self._optimizer.update_rows(self.coefficients, rows, delta, self.coefficient_slots, rate)
        else:
            gradient = 2 * self._l2 * self.coefficients
            gradient[rows] += delta
            self._optimizer.update(self.coefficients, gradient, self.coefficient_slots, rate, t)
        if self._l2 or len(self._starts) > 1:
            self._optimizer.update(self.scales, 2 * self._l2 * self.scales, self.scale_slots, rate, t)


class SpanLayer:
    """A first layer without a kernel, for SGD and fewer training clips than values."""

    def __init__(self, inputs: HeadInputs, kernel: np.ndarray, optimizer: Sgd, l2: float):
        self._inputs, self._start_kernel = inputs, kernel
        self._starts = {"train": inputs.project("train", kernel)}
        self._span = _Span(inputs.gram["train"], [self._starts["train"]], optimizer, l2)

    def begin(self, positions: np.ndarray) -> None:
        """The next batches will be made of the training clips at these positions, in this order."""

    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Outputs before the bias, float32 [n, units], of the next batch: training clips at these positions."""
        return self._span.forward(batch)

    def step(self, batch: np.ndarray, delta: np.ndarray, rate: float, t: int) -> None:
        """The optimizer's step on the batch of `forward`; delta [n, units] is the loss's gradient by the outputs.

        Overwrites delta; t counts batches from 1.
        """
        self._span.step(batch, delta, rate, t)

    def parameters(self) -> list[np.ndarray]:
        """All that decides the outputs, to be copied and set back in place."""
        return [self._span.scales, self._span.coefficients]

    def outputs(self, part: str) -> np.ndarray:
        """Outputs before the bias of a whole part, float32 [n, units]."""
        if part not in self._starts:
            self._starts[part] = self._inputs.project(part, self._start_kernel)
        return self._inputs.gram[part] @ self._span.coefficients + self._span.scales[0] * self._starts[part]

    def kernel(self) -> np.ndarray:
        """float32 [values, units]."""
        return self._span.scales[0] * self._start_kernel + self._inputs.values("train").T @ self._span.coefficients


class WindowLayer:
    """A first layer whose kernel is touched once for some batches, for SGD and any number of clips."""

    def __init__(self, inputs: HeadInputs, kernel: np.ndarray, optimizer: Sgd, l2: float):
        self._inputs, self._optimizer, self._l2 = inputs, optimizer, l2
        self._kernels = [kernel.copy(), *optimizer.slots(kernel)]  # and the velocity, where there is momentum
        self._values = self._span = None
        self._next = 0

    def begin(self, positions: np.ndarray) -> None:
        self._fold()
        self._values = self._inputs.values("train", positions)
        starts = [self._values @ kernel for kernel in self._kernels]
        self._span = _Span(self._values @ self._values.T, starts, self._optimizer, self._l2)
        self._next = 0

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self._span.forward(slice(self._next, self._next + len(batch)))

    def step(self, batch: np.ndarray, delta: np.ndarray, rate: float, t: int) -> None:
        self._span.step(slice(self._next, self._next + len(batch)), delta, rate, t)
        self._next += len(batch)

    def _fold(self) -> None:
        """Bring kernel and velocity up to date."""
        if self._span is None:
            return
        span, self._span = self._span, None
        scales = [span.scales, *span.scale_slots]  # of the kernel, and of the velocity
        coefficients = [span.coefficients, *span.coefficient_slots]
        for first in range(0, len(self._kernels[0]), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            values = self._values[:, rows].T
            old = [kernel[rows].copy() for kernel in self._kernels]
            for kernel, of_old, of_inputs in zip(self._kernels, scales, coefficients):
                np.matmul(values, of_inputs, out=kernel[rows])
                for scale, part in zip(of_old, old):
                    kernel[rows] += scale * part

    def parameters(self) -> list[np.ndarray]:
        self._fold()
        return self._kernels[:1]

    def outputs(self, part: str) -> np.ndarray:
        self._fold()
        return self._inputs.project(part, self._kernels[0])

    def kernel(self) -> np.ndarray:
        self._fold()
        return self._kernels[0]


class DirectLayer:
    """A first layer trained plainly, for any optimizer and any number of clips."""

    def __init__(self, inputs: HeadInputs, kernel: np.ndarray, optimizer: Sgd | Adam, l2: float):
        self._inputs, self._optimizer, self._l2 = inputs, optimizer, np.float32(l2)
        self._kernel = kernel.copy()
        self._slots = optimizer.slots(self._kernel)
        self._values = None

    def begin(self, positions: np.ndarray) -> None:
        pass

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self._values = self._inputs.values("train", batch)
        return self._values @ self._kernel

    def step(self, batch: np.ndarray, delta: np.ndarray, rate: float, t: int) -> None:
        for first in range(0, len(self._kernel), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
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
