"""Inception-ResNet-v2 as a frozen feature extractor: log-mel in, 3 x 3 x 1536 out.

Szegedy, Ioffe, Vanhoucke, Alemi: "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning"
(2016), as built by keras.applications, without its top.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping

import fsspec
import keras
import numpy as np
import tensorflow as tf

FEATURE_SHAPE = (3, 3, 1536)
IMAGENET, RANDOM = "imagenet", "random"
_DOWNLOAD_TIMEOUT_S = 30.0
_CALIBRATION_MOMENTUM = 0.9


class WeightsError(ValueError):
    """Weights that can't be had, or that don't fit the network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How a log-mel becomes the network's image.

    Attributes:
      low, high: the log-mel values that become -1 and 1: the range of the training clips.
      size: side of the square image in pixels; 139 to 170 give features of 3 x 3 x 1536.
    """

    low: float
    high: float
    size: int = 150

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"the log-mel range must rise, got {self.low:g} to {self.high:g}: are all clips silent?")


@keras.saving.register_keras_serializable("melcache")
class LateImage(keras.layers.Layer):
    """Scales a log-mel to [-1, 1], resizes it and repeats it to three channels, on the accelerator.

    Input shape: [batch, n_mels, frames]. Output shape: [batch, size, size, 3], float32; values outside the training
    clips' range lie outside [-1, 1].
    """

    def __init__(self, settings: ImageSettings | dict, **kwargs):
        super().__init__(**kwargs)
        self.settings = ImageSettings(**settings) if isinstance(settings, dict) else settings

    def call(self, log_mel):
        settings = self.settings
        scaled = (tf.cast(log_mel, tf.float32) - settings.low) * (2.0 / (settings.high - settings.low)) - 1.0
        resized = tf.image.resize(scaled[..., tf.newaxis], (settings.size, settings.size))  # bilinear
        return tf.repeat(resized, 3, axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.settings.size, self.settings.size, 3)

    def get_config(self):
        return {**super().get_config(), "settings": dataclasses.asdict(self.settings)}


def build_backbone(image_size: int) -> keras.Model:
    """The network without its top and with no weights worth having yet: [batch, size, size, 3] to [batch, 3, 3, 1536].

    Raises:
      ValueError: an image size that does not give 3 x 3 x 1536.
    """
    backbone = keras.applications.InceptionResNetV2(
        weights=None, include_top=False, input_shape=(image_size, image_size, 3)
    )
    if backbone.output_shape[1:] != FEATURE_SHAPE:
        raise ValueError(
            f"images of {image_size} pixels give features of {backbone.output_shape[1:]}, expected {FEATURE_SHAPE}: "
            "choose a size from 139 to 170"
        )
    return backbone


def forbid_tensor_float_32() -> None:
    """Let float32 be float32 on GPUs too, which would else round what they multiply to 10 bits of mantissa."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


def load_weights(backbone: keras.Model, source: str) -> None:
    """Load IMAGENET (Keras's own download and cache) or a weights file (local or gs://; .weights.h5, or Keras 2's .h5).

    Raises:
      WeightsError: they can't be had, or are of another network; says what to do.
    """
    if source == IMAGENET:
        _load_imagenet(backbone)
        return
    if not source.endswith(".h5"):
        raise WeightsError(
            f"--weights={source}: expected 'imagenet', 'random' or a Keras weights file, .weights.h5 or .h5"
        )
    try:
        # Keras reads local files only; a simple local path passes through unchanged.
        with tempfile.TemporaryDirectory() as folder, fsspec.open(source, "rb") as stored:
            file = source
            if "://" in source:
                file = os.path.join(folder, os.path.basename(source))
                with open(file, "wb") as copy:
                    shutil.copyfileobj(stored, copy)
            with warnings.catch_warnings():
                # Keras only warns of some parts it does not find, and leaves them as they were.
                warnings.filterwarnings("error", category=UserWarning)
                backbone.load_weights(file)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise WeightsError(
            f"--weights={source}: no such file. Give a weights file, 'imagenet' (downloaded by Keras) or 'random'"
        ) from error
    except (ValueError, KeyError, OSError, IndexError, TypeError, UserWarning) as error:
        raise WeightsError(
            f"--weights={source} does not fit Inception-ResNet-v2 without its top "
            f"({backbone.count_params():,} parameters): {first_line(error)}"
        ) from error


def _load_imagenet(backbone: keras.Model) -> None:
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)  # Keras sets none, and a closed network may never answer
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's download bar; our standard output belongs to results
            pretrained = keras.applications.InceptionResNetV2(
                weights="imagenet", include_top=False, input_shape=backbone.input_shape[1:]
            )
    except Exception as error:  # Keras raises a bare Exception where the download fails
        raise WeightsError(
            f"the ImageNet weights can't be had ({first_line(error)}). Where there is a network, Keras downloads them "
            "to ~/.keras/models; or copy the file there, or name it with --weights=PATH, or use --weights=random"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)
    backbone.set_weights(pretrained.get_weights())


def first_line(error: Exception) -> str:
    """What an error says, without what follows its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def randomise(backbone: keras.Model, seed: int) -> None:
    """Give every kernel fresh Glorot-uniform values (Keras's default) that depend on the seed alone, not on Keras."""
    for index, variable in enumerate(v for v in backbone.variables if v.path.endswith("kernel")):
        *receptive_field, fan_in, fan_out = variable.shape
        area = int(np.prod(receptive_field))
        limit = np.sqrt(6.0 / (area * fan_in + area * fan_out))
        values = np.random.default_rng([seed, index]).uniform(-limit, limit, variable.shape)
        variable.assign(values.astype(np.float32))


def calibrate(backbone: keras.Model, batches: Iterable[tf.Tensor]) -> None:
    """Move batch-norm statistics towards those of images, batches [n, size, size, 3] of training clips.

    For random weights, whose features would otherwise be so small (std 0.01) that no head learns from them. As in
    training, moving averages are taken; their momentum is 0.9, so that 20 batches leave an eighth of the start: a deep
    random network that is normalised to the full at every layer is chaotic, it sends near clips to far features
    (docs/architecture.md has figures).
    """
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = _CALIBRATION_MOMENTUM
    for batch in batches:
        backbone(batch, training=True)
    for layer, momentum in zip(layers, usual):
        layer.momentum = momentum


def batch_norm_statistics(backbone: keras.Model) -> dict[str, np.ndarray]:
    """The moving means and variances by position: with the seed, all there is to know of calibrated random weights."""
    moving = [variable for variable in backbone.variables if "moving_" in variable.path]
    return {f"{index:04d}_{variable.name}": variable.numpy() for index, variable in enumerate(moving)}


def set_batch_norm_statistics(backbone: keras.Model, statistics: Mapping[str, np.ndarray]) -> None:
    """The inverse of `batch_norm_statistics`."""
    moving = [variable for variable in backbone.variables if "moving_" in variable.path]
    for variable, name in zip(moving, sorted(statistics), strict=True):
        variable.assign(statistics[name])


def weights_digest(backbone: keras.Model) -> str:
    """sha256 over shape and values of all variables in order: equal networks have equal digests, whatever the file."""
    result = hashlib.sha256()
    for variable in backbone.variables:
        result.update(repr(tuple(variable.shape)).encode())
        result.update(np.ascontiguousarray(variable.numpy(), "<f4").tobytes())
    return result.hexdigest()
