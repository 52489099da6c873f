"""The frozen network as a description that can be sent to another machine and built there."""

import dataclasses
import io
import zipfile

import fsspec
import keras
import numpy as np

from model import backbone as backbones
from model.backbone import ImageSettings, WeightsError

FLOAT32, BFLOAT16 = "float32", "bfloat16"
_POLICIES = {FLOAT32: "float32", BFLOAT16: "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """Everything that decides the features of a log-mel. Small, picklable; building it takes seconds.

    Attributes:
      weights: "imagenet", "random" or a weights file (local or gs://).
      image: how a log-mel becomes an image.
      seed: of random weights.
      compute_precision: FLOAT32, or BFLOAT16, with which weights and features are still float32.
      pooled: whether features are the mean over the 3 x 3 positions, taken in float32.
      statistics_path: the .npz file with random weights' batch-norm statistics (local or gs://), for all machines that
        build the network to read; None leaves them as initialised.
      weights_digest: what `backbone.weights_digest` must give; None where it is not known yet.
    """

    weights: str
    image: ImageSettings
    seed: int = 0
    compute_precision: str = FLOAT32
    pooled: bool = False
    statistics_path: str | None = None
    weights_digest: str | None = None

    def __post_init__(self):
        if self.compute_precision not in _POLICIES:
            raise ValueError(f"compute precision must be one of {list(_POLICIES)}, got {self.compute_precision!r}")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one clip: (3, 3, 1536), or (1536,) when pooled."""
        return backbones.FEATURE_SHAPE[-1:] if self.pooled else backbones.FEATURE_SHAPE

    def build(self, log_mel_shape: tuple[int, int]) -> keras.Model:
        """The network: log-mel [batch, n_mels, frames] to float32 features [batch, *feature_shape].

        Batch norm is in inference mode.

        Args:
          log_mel_shape: n_mels, frames.
        Raises:
          WeightsError: the weights can't be had, don't fit, or are not those of `weights_digest`.
        """
        backbone = self.build_backbone()
        set_compute_precision(backbone, self.compute_precision)
        if self.compute_precision == FLOAT32:
            backbones.forbid_tensor_float_32()
        log_mel = keras.Input(log_mel_shape, name="log_mel")
        features = backbone(backbones.LateImage(self.image, dtype="float32")(log_mel), training=False)
        last = keras.layers.GlobalAveragePooling2D if self.pooled else keras.layers.Identity
        return keras.Model(log_mel, last(dtype="float32")(features), name="frozen_network")

    def build_backbone(self) -> keras.Model:
        """The network without its image layer, in float32: images [batch, size, size, 3] to [batch, 3, 3, 1536].

        Raises:
          WeightsError: as `build`.
        """
        backbone = backbones.build_backbone(self.image.size)
        if self.weights == backbones.RANDOM:
            backbones.randomise(backbone, self.seed)
            if self.statistics_path:
                backbones.set_batch_norm_statistics(backbone, _read_statistics(self.statistics_path))
        else:
            backbones.load_weights(backbone, self.weights)
        self._check_digest(backbone)
        return backbone

    def _check_digest(self, backbone: keras.Model) -> None:
        if self.weights_digest is None:
            return
        found = backbones.weights_digest(backbone)
        if found != self.weights_digest:
            changed = f"the file {self.weights} has changed since"
            if self.weights == backbones.RANDOM:
                changed = (
                    f"random weights of another seed than {self.seed}, or {self.statistics_path} has changed since"
                )
            elif self.weights == backbones.IMAGENET:
                changed = "Keras's copy of them is another one than it was"
            raise WeightsError(
                f"the weights have digest {found[:12]}, expected {self.weights_digest[:12]}: {changed}; put the right "
                "ones there, or begin with another --output"
            )


def set_compute_precision(backbone: keras.Model, precision: str) -> None:
    """Let the layers of a network compute in FLOAT32 or BFLOAT16; weights stay float32."""
    for layer in backbone.layers:
        layer.dtype_policy = _POLICIES[precision]


def _read_statistics(path: str) -> dict[str, np.ndarray]:
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} is missing, without which random weights can't be made again: cache the clips anew"
        ) from error
    except Exception as error:  # object stores have errors of many classes
        raise WeightsError(f"{path} can't be read ({backbones.first_line(error)})") from error
    try:
        stored = np.load(io.BytesIO(data))
        return {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no file of batch-norm statistics: cache the clips anew") from error
