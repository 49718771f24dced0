"""The recipe: number formats x transforms x clip x rounding x policy. What `quantizer=` selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.kv import KVCache
from quantbench.pipeline.policy import Policy
from quantbench.rounding.base import BlockRounding, Rounding
from quantbench.transforms.base import Clip, ScaleTransform, ShiftTransform
from quantbench.transforms.rotation import Rotation


@component
class Recipe:
    """One way to quantize a model.

    weight      format of the weights; null leaves them in full precision
    activation  format of the inputs of quantized layers, applied when the model runs; null: full precision
    kv_cache    how the key-value cache of all blocks is stored, applied causally when it runs; null: full precision
    rotation    orthogonal rotations of the whole model, before anything else
    transforms  function-preserving rewrites before rounding, in order
    clip        range search before rounding; null: none
    rounding    how weights are put on their grid
    true_sequential  collect statistics anew after each group of a block, with the groups before it already quantized
    propagate   whose outputs feed the next block while calibrating: the `quantized` or the `full`-precision block's
    """

    weight: Format | None
    activation: ActivationFormat | None = None
    kv_cache: KVCache | None = None
    rotation: Rotation | None = None
    transforms: dict[str, ScaleTransform | ShiftTransform] = Field(default_factory=dict)
    clip: Clip | None = None
    rounding: Rounding | BlockRounding | None
    policy: Policy
    true_sequential: bool = False
    propagate: Literal["quantized", "full"] = "quantized"
    about: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.weight is None) != (self.rounding is None):
            raise ValueError("weight and rounding belong together: set both, or set both to null")
        if self.clip is not None and self.weight is None:
            raise ValueError("clip needs a weight format: set weight, or clip: null")
        for name, transform in self.transforms.items():
            if not transform.needs:
                raise ValueError(f"transforms.{name} declares no statistics in `needs`, so it would never be applied")
        for part in (*self.transforms.values(), self.clip, self.rounding, self.policy):
            if part is not None and (reason := part.refusal(self)) is not None:
                raise ValueError(reason)
        if isinstance(self.rounding, BlockRounding):
            self._check_whole_block()
        if self.true_sequential and not self.rounding_needs:
            raise ValueError("true_sequential has no effect on a rounding that uses no statistics: set it to false")
        return self

    def _check_whole_block(self) -> None:
        """What works weight by weight does not go with a rounding that takes all weights of a block at once."""
        whole = "a rounding that takes a whole block"
        if self.true_sequential:
            raise ValueError(f"true_sequential has no effect on {whole}: set it to false")
        if self.clip is not None:
            raise ValueError(f"clip has no effect on {whole}: set it to null")
        if self.policy.lm_head:
            raise ValueError(f"policy.lm_head=true does not go with {whole}: the head is in no block; set it to false")

    @property
    def rounding_needs(self) -> frozenset[str]:
        """Statistics the rounding reads."""
        return self.rounding.needs if self.rounding else frozenset()

    @property
    def first_needs(self) -> frozenset[str]:
        """Statistics to collect before a block is changed: for transforms, clip and static activations.

        Unless the recipe is true-sequential, those for rounding, too.
        """
        needs: frozenset[str] = frozenset() if self.true_sequential else self.rounding_needs
        for part in (*self.transforms.values(), self.clip, self.activation, self.policy):
            if part is not None:
                needs |= part.needs
        return needs - {"block"}

    @property
    def observes_norms_alone(self) -> bool:
        """Whether `first_needs` are of what normalizations write alone: none but scales folded there read any."""
        others = frozenset() if self.true_sequential else self.rounding_needs
        for part in (self.clip, self.activation, self.policy):
            others |= frozenset() if part is None else part.needs
        return not others and all(
            isinstance(transform, ScaleTransform) and transform.producers == {"norm"}
            for transform in self.transforms.values()
        )

    @property
    def data_free(self) -> bool:
        """Whether no part uses calibration data: then the run is the same whatever calibration set is chosen."""
        allocation = self.policy.allocation
        return not (self.first_needs | self.rounding_needs | (allocation.needs if allocation else frozenset()))

    def check_data(self, *, given: bool) -> None:
        """Raise ConfigError if it reads calibration data and is given none."""
        if not given and not self.data_free:
            raise ConfigError(
                "quantizer: this recipe reads calibration data (static activations do, too): none were given"
            )

    @property
    def weight_formats(self) -> dict[str, Format]:
        """Every format a weight may get, by the key it stands at."""
        rules = {f"policy.rules.{name}.format": rule.format for name, rule in self.policy.rules.items()}
        return {key: grid for key, grid in {"weight": self.weight, **rules}.items() if grid is not None}

    @property
    def rewrites(self) -> bool:
        """Whether weights are more than the original ones plus an error: transforms or rotations changed them."""
        return bool(self.transforms) or self.rotation is not None

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise ConfigError for a pattern of the policy that matches none of these layers."""
        if not self.full_precision:
            self.policy.check_used(list(names))

    def expected_bits(self, width: int) -> float:
        """Bits that each weight of a layer [width, width] takes."""
        return 16.0 if self.weight is None else self.weight.bits_per_weight((width, width))

    @property
    def full_precision(self) -> bool:
        """Whether nothing is quantized or rewritten."""
        quantized = (self.weight, self.activation, self.kv_cache)
        return not self.rewrites and all(part is None for part in quantized)


FULL_PRECISION: dict[str, Any] = {
    "_target_": f"{Recipe.__module__}.{Recipe.__qualname__}",
    "weight": None,
    "rounding": None,
    "policy": {"_target_": f"{Policy.__module__}.{Policy.__qualname__}"},
}
"""What `quantizer=none` is, as a configuration."""
