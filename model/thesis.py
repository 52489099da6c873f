"""The source system's four heads, and what it reported for them.

A bachelor thesis on musical-instrument classification: Inception-ResNet-v2 with ImageNet weights, frozen, a new head on
top, 1,301 notes of seven instruments of the Vienna Symphonic Library (commercial, so its figures can't be repeated).
"""

import dataclasses

from model.head_settings import HeadSettings

# lr_t = 0.045 / (1 + 0.9 t), t counting batches: the `decay` argument of the Keras of its day, which today's ignores.
_COMMON = dict(learning_rate=0.045, decay_rate=0.9, momentum=0.9, epochs=50)

SETUPS = {
    "setup1": HeadSettings(hidden_units=(512,), nesterov=False, batch_size=20, **_COMMON),
    "setup2": HeadSettings(hidden_units=(512,), nesterov=True, batch_size=20, **_COMMON),
    "setup3": HeadSettings(hidden_units=(1024, 512), nesterov=False, batch_size=30, **_COMMON),
    "setup4": HeadSettings(hidden_units=(1024, 512), nesterov=True, batch_size=30, **_COMMON),
}


def exact(settings: HeadSettings) -> HeadSettings:
    """With features as they are, as the source system had them; ours are standardised."""
    return dataclasses.replace(settings, standardise=False)


@dataclasses.dataclass(frozen=True)
class Reported:
    """Test loss and accuracy as the thesis gives them."""

    test_loss: float
    test_accuracy: float


REPORTED = {
    "setup1": Reported(0.69, 0.77),
    "setup2": Reported(0.89, 0.74),
    "setup3": Reported(0.83, 0.77),
    "setup4": Reported(0.75, 0.80),
}
