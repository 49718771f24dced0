"""The recipe: number formats x transforms x clip x rounding x policy. What `quantizer=` selects."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from quantbench.component import component
from quantbench.errors import ConfigError
from quantbench.formats.base import ActivationFormat, Format
from quantbench.rounding.base import Rounding
from quantbench.transforms.base import Clip, ScaleTransform


@component
class Policy:
    """Which weights are quantized. By default every linear layer of the decoder blocks, and nothing else.

    keep  regular expressions, searched in layer names (`layers.0.mlp`, `o_proj$`): matching layers stay as they are
    no_clip  regular expressions of layers whose weights are not clipped (queries and keys: their product counts)
    lm_head, embeddings  quantize these too (the embeddings by nearest rounding: they have no input to calibrate on)
    """

    keep: tuple[str, ...] = ()
    no_clip: tuple[str, ...] = ()
    lm_head: bool = False
    embeddings: bool = False

    @model_validator(mode="after")
    def _compile(self) -> Policy:
        for name in ("keep", "no_clip"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{name}: {pattern!r} is not a regular expression: {error}") from error
        return self

    def keeps(self, name: str) -> bool:
        """Whether the layer stays in full precision."""
        return any(re.search(pattern, name) for pattern in self.keep)

    def clips(self, name: str) -> bool:
        """Whether the layer's weight may be clipped."""
        return not any(re.search(pattern, name) for pattern in self.no_clip)

    def check_used(self, names: list[str]) -> None:
        """Raise ConfigError for a `keep` pattern that matches no layer: most likely a misspelling."""
        for pattern in self.keep:
            if not any(re.search(pattern, name) for name in names):
                raise ConfigError(f"quantizer.policy.keep: {pattern!r} matches no layer, for example not {names[0]!r}")


@component
class Recipe:
    """One way to quantize a model.

    weight      format of the weights; null leaves them in full precision
    activation  format of the inputs of quantized layers, applied when the model runs; null: full precision
    transforms  function-preserving rewrites before rounding, in order
    clip        range search before rounding; null: none
    rounding    how weights are put on their grid
    true_sequential  collect statistics anew after each group of a block, with the groups before it already quantized
    propagate   whose outputs feed the next block while calibrating: the `quantized` or the `full`-precision block's
    """

    weight: Format | None
    activation: ActivationFormat | None = None
    transforms: dict[str, ScaleTransform] = Field(default_factory=dict)
    clip: Clip | None = None
    rounding: Rounding | None
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
        if self.true_sequential and not self.rounding_needs:
            raise ValueError("true_sequential has no effect on a rounding that uses no statistics: set it to false")
        return self

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
        for part in (*self.transforms.values(), self.clip, self.activation):
            if part is not None:
                needs |= part.needs
        return needs

    @property
    def data_free(self) -> bool:
        """Whether no part uses calibration data: then the run is the same whatever calibration set is chosen."""
        return not (self.first_needs | self.rounding_needs)

    @property
    def full_precision(self) -> bool:
        """Whether nothing is quantized or rewritten."""
        return self.weight is None and self.activation is None and not self.transforms
