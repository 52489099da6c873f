"""What a head is and how it is trained. Standard library only, so that a report needs no TensorFlow."""

import dataclasses
import math

POOLINGS = ("none", "average")
OPTIMIZERS = ("sgd", "adam")
LEARNING_RATE_RULES = ("inverse_time", "cosine", "constant")
CLASS_WEIGHTS = ("none", "balanced")
# Settings that say something only beside one choice of another: with other choices they must be left at their default.
HAS_MEANING_WITH = {
    "decay_rate": ("learning_rate_rule", "inverse_time"),
    "warmup_epochs": ("learning_rate_rule", "cosine"),
    "momentum": ("optimizer", "sgd"),
    "nesterov": ("optimizer", "sgd"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """One head and how it is trained: fully connected ReLU layers, a softmax, cross-entropy.

    Attributes:
      hidden_units: units of each hidden layer; none gives softmax regression.
      pooling: "average" takes the mean over a feature's positions (1536 values instead of 3 x 3 x 1536).
      standardise: whether features are standardised with the training clips' mean and deviation.
      dropout: of the hidden layers' outputs, the fraction that is left out.
      l2: of all kernels; adds l2 * (sum of squares) to the loss, as keras.regularizers.L2 does.
      optimizer: "sgd" or "adam" (Keras's betas and epsilon).
      learning_rate: at the first batch (at the end of the warm-up for "cosine").
      learning_rate_rule: with t counting batches from 0,
        "inverse_time": learning_rate / (1 + decay_rate * t);
        "cosine": rises over warmup_epochs, then falls to 0 at the last batch;
        "constant".
      decay_rate: of "inverse_time".
      warmup_epochs: of "cosine".
      momentum, nesterov: of "sgd".
      batch_size: the last batch of an epoch may be smaller.
      epochs: at most.
      early_stopping_patience: stop after so many epochs without a lower validation loss, and take the weights of the
        best epoch; 0 trains all epochs and takes the last.
      class_weights: "balanced" weighs each clip by clips / (classes * clips of its class).
      label_smoothing: the part of each target that is shared out over all classes.
    """

    hidden_units: tuple[int, ...]
    pooling: str = "none"
    standardise: bool = True
    dropout: float = 0.0
    l2: float = 0.0
    optimizer: str = "sgd"
    learning_rate: float
    learning_rate_rule: str = "inverse_time"
    decay_rate: float = 0.0
    warmup_epochs: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    batch_size: int
    epochs: int
    early_stopping_patience: int = 0
    class_weights: str = "none"
    label_smoothing: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "hidden_units", tuple(self.hidden_units))
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{name} must be {_SPOKEN[kinds]}, got {value!r}")
        for units in self.hidden_units:
            if not isinstance(units, int) or isinstance(units, bool) or not 1 <= units <= 65_536:
                raise ValueError(f"hidden_units must be whole numbers from 1 to 65536, got {units!r}")
        for name, (holds, expected) in _RANGES.items():
            if not holds(getattr(self, name)):
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs={self.epochs}, got {self.warmup_epochs!r}")
        for name, (needs, choice) in HAS_MEANING_WITH.items():
            value = getattr(self, name)
            if value and getattr(self, needs) != choice:
                raise ValueError(f"{name}={value!r} has no meaning with {needs}={getattr(self, needs)!r}: leave it out")


_NUMBER, _WHOLE, _YES_NO, _TEXT = (int, float), (int,), (bool,), (str,)
_SPOKEN = {_NUMBER: "a number", _WHOLE: "a whole number", _YES_NO: "true or false", _TEXT: "text"}
_KINDS = {
    **dict.fromkeys(("dropout", "l2", "learning_rate", "decay_rate", "warmup_epochs", "momentum"), _NUMBER),
    "label_smoothing": _NUMBER,
    **dict.fromkeys(("batch_size", "epochs", "early_stopping_patience"), _WHOLE),
    **dict.fromkeys(("standardise", "nesterov"), _YES_NO),
    **dict.fromkeys(("pooling", "optimizer", "learning_rate_rule", "class_weights"), _TEXT),
}
_RANGES = {
    **dict.fromkeys(("dropout", "momentum", "label_smoothing"), (lambda v: 0 <= v < 1, "at least 0 and below 1")),
    **dict.fromkeys(("l2", "decay_rate", "warmup_epochs"), (lambda v: 0 <= v < math.inf, "at least 0 and finite")),
    "learning_rate": (lambda v: 0 < v < math.inf, "above 0 and finite"),
    **dict.fromkeys(("batch_size", "epochs"), (lambda v: 1 <= v < 1e9, "at least 1")),
    "early_stopping_patience": (lambda v: v >= 0, "at least 0"),
}
_CHOICES = {
    "pooling": POOLINGS,
    "optimizer": OPTIMIZERS,
    "learning_rate_rule": LEARNING_RATE_RULES,
    "class_weights": CLASS_WEIGHTS,
}
