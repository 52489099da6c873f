"""What a head is and how it is trained. Standard library only, so that a report needs no TensorFlow."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """One head and how it is trained. The learning rate at batch t is learning_rate / (1 + decay_rate * t)."""

    hidden_units: tuple[int, ...]
    learning_rate: float
    decay_rate: float
    momentum: float
    nesterov: bool
    batch_size: int
    epochs: int

    def __post_init__(self):
        for name in ("learning_rate", "batch_size", "epochs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum}")
