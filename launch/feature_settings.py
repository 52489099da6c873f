"""What decides features beside the clips: settings of one's own, or those of a feature dataset that is there."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from model import backbone as backbones
from model.frozen_network import FLOAT32
from tfdata.augment import AugmentSettings
from tfdata.spec import DatasetError, DatasetSpec

VARIANTS = "variants"  # the key of the spec's settings; absent where there are none


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Named as the flags of `melcache cache`.

    Attributes:
      weights: "imagenet", "random" or a weights file.
      seed: of random weights.
      precision: of the stored features, float16 or float32.
      compute_precision: float32 or bfloat16.
      pooled: whether features are the mean over the 3 x 3 positions.
      variants: how many changed copies of each training clip are embedded too.
      variants_seed: of what is drawn for them.
    """

    weights: str = backbones.IMAGENET
    seed: int = 0
    precision: str = "float16"
    compute_precision: str = FLOAT32
    pooled: bool = False
    variants: int = 0
    variants_seed: int = 0

    def __post_init__(self):
        for name in ("seed", "variants", "variants_seed"):
            if getattr(self, name) < 0:
                raise DatasetError(f"--{name} must be at least 0, got {getattr(self, name)}")

    @property
    def augment(self) -> AugmentSettings:
        return AugmentSettings(seed=self.variants_seed)

    def described_variants(self) -> dict[str, Any]:
        """For the spec's settings: {} where there are none."""
        return {VARIANTS: {"count": self.variants, **dataclasses.asdict(self.augment)}} if self.variants else {}


def variants_of(spec: DatasetSpec) -> AugmentSettings:
    """How the variants in a feature dataset were made; as variants are made by default where it has none."""
    described = {name: value for name, value in spec.settings.get(VARIANTS, {}).items() if name != "count"}
    return AugmentSettings(**described)


def settings_like(directory: str, spec: DatasetSpec, given: Mapping[str, Any]) -> FeatureSettings:
    """The settings that the feature dataset `spec` in `directory` was made with.

    Args:
      given: settings that the user gave beside; they may only repeat it. A weights file may stand elsewhere now: that
        it is the same is seen when it is loaded.
    Raises:
      DatasetError: one of `given` differs; names it.
    """
    weights = spec.settings["weights"]
    variants = spec.settings.get(VARIANTS, {})
    is_file = weights["source"] not in (backbones.IMAGENET, backbones.RANDOM)
    # Only those that `given` may be compared with: a seed means nothing but to random weights.
    theirs: dict[str, Any] = {
        "weights": spec.provenance.get("weights", "") if is_file else weights["source"],
        "precision": spec.array.dtype,
        "compute_precision": spec.settings["compute_precision"],
        "pooled": len(spec.array.shape) == 1,
        "variants": variants.get("count", 0),
    }
    if "seed" in weights:
        theirs["seed"] = weights["seed"]
    if variants:
        theirs["variants_seed"] = variants["seed"]
    moved = {"weights"} if is_file and given.get("weights") not in (backbones.IMAGENET, backbones.RANDOM) else set()
    for name, value in given.items():
        if name not in moved and name in theirs and value != theirs[name]:
            raise DatasetError(
                f"--{name}={value} contradicts --like={directory}, which has {theirs[name]}: leave it out, "
                "or leave out --like"
            )
    settings = FeatureSettings(**{**theirs, **{name: given[name] for name in moved if name in given}})
    if variants and settings.described_variants()[VARIANTS] != variants:
        raise DatasetError(f"{directory} has variants that this melcache makes otherwise: it can't be continued with")
    return settings
