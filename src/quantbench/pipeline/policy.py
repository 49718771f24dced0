"""The layer policy: which weights are quantized, and which format each gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.mixing import Mixing
from quantbench.formats.base import Format
from quantbench.pipeline.allocation import BitAllocation
from quantbench.rounding.base import BlockRounding

_ATTENTION = re.compile(r"attn|attention")
"""Every architecture of transformers names its attention modules so; what is not attention in a block is its MLP."""


@component
class Rule:
    """Layers whose name matches the regular expression `match` get `format`; null leaves them as they are."""

    match: str
    format: Format | None


@component
class Policy:
    """Which weights are quantized. By default every linear layer of the decoder blocks, and nothing else.

    component  `attention` or `mlp`: only these layers of each block
    keep_first_blocks, keep_last_blocks  so many blocks stay in full precision
    keep       regular expressions, searched in layer names (`layers.0.mlp`, `o_proj$`): these layers stay as they are
    rules      named rules, each a `match` and a `format` (null: keep); the first that matches decides, `keep` first
    outlier_columns  so many input columns of each weight, those with the largest activations, stay in 16 bits
    allocation  the bits of each layer by measured sensitivity, for a target average; null: the format's own bits
    min_expert_tokens  an expert to which fewer calibration tokens were routed is rounded to nearest, without clip and
               kept columns: n tokens span at most n of the directions its Hessian should weigh
    all_expert_tokens  while calibrating, every expert sees all tokens, not only those routed to it
    no_clip    regular expressions of layers whose weights are not clipped (queries and keys: their product counts)
    lm_head, embeddings  quantize these too (the embeddings by nearest rounding: they have no input to calibrate on);
               where inputs are quantized, the head's is
    """

    component: Literal["all", "attention", "mlp"] = "all"
    keep_first_blocks: Annotated[int, Field(ge=0)] = 0
    keep_last_blocks: Annotated[int, Field(ge=0)] = 0
    keep: tuple[str, ...] = ()
    rules: dict[str, Rule] = Field(default_factory=dict)
    outlier_columns: Annotated[int, Field(ge=0)] = 0
    allocation: BitAllocation | None = None
    min_expert_tokens: Annotated[int, Field(ge=1)] = 64
    all_expert_tokens: bool = False
    no_clip: tuple[str, ...] = ()
    lm_head: bool = False
    embeddings: bool = False

    @model_validator(mode="after")
    def _compile(self) -> Policy:
        patterns = [("keep", pattern) for pattern in self.keep] + [("no_clip", pattern) for pattern in self.no_clip]
        patterns += [(f"rules.{name}.match", rule.match) for name, rule in self.rules.items()]
        for key, pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{key}: {pattern!r} is not a regular expression: {error}") from error
        return self

    def refusal(self, recipe: Any) -> str | None:
        """Kept columns need a rounding that takes a weight at a time; an allocation may refuse, too.

        The head is given the positions of a sequence in chunks: the grid of its input must not depend on other tokens.
        """
        if self.lm_head and recipe.activation is not None and recipe.activation.mixing is not Mixing.NONE:
            name = type(recipe.activation).__name__
            return (
                f"policy.lm_head=true: the grid of {name} for a token depends on other tokens of the sequence, which "
                "the head is not given at once; set it to false, or choose another activation"
            )
        if self.outlier_columns and isinstance(recipe.rounding, BlockRounding):
            name = type(recipe.rounding).__name__
            return f"policy.outlier_columns: {name} takes a whole block and cannot keep columns: set it to 0"
        return None if self.allocation is None else self.allocation.refusal(recipe)

    @property
    def needs(self) -> frozenset[str]:
        """Statistics the choice of columns reads."""
        return frozenset({"absmax"}) if self.outlier_columns else frozenset()

    def plan(self, blocks: Sequence[Sequence[str]], default: Format | None) -> dict[str, Format | None]:
        """The weight format of each layer the recipe treats, given the layer names of each block.

        Raises ConfigError for a pattern or component that matches no layer, most likely a misspelling, and if nothing
        is left to quantize.
        """
        self.check_used([name for block in blocks for name in block])
        last = len(blocks) - self.keep_last_blocks
        found = {
            name: chosen.format
            for index, block in enumerate(blocks)
            if self.keep_first_blocks <= index < last
            for name in block
            if (chosen := self._rule(name, default)) is not None
        }
        if not found:
            raise ConfigError("quantizer.policy: no layer is left to quantize")
        return found

    def keeps(self, name: str) -> bool:
        """Whether a pattern or the component leaves the layer in full precision."""
        if self.component != "all" and (self.component == "attention") != bool(_ATTENTION.search(name)):
            return True
        return any(re.search(pattern, name) for pattern in self.keep)

    def clips(self, name: str) -> bool:
        """Whether the layer's weight may be clipped."""
        return not any(re.search(pattern, name) for pattern in self.no_clip)

    def _rule(self, name: str, default: Format | None) -> Rule | None:
        if self.keeps(name):
            return None
        for rule in self.rules.values():
            if re.search(rule.match, name):
                return rule if rule.format is not None else None
        return Rule(match="", format=default)

    def check_used(self, names: list[str]) -> None:
        """Raise ConfigError for a pattern or component that matches none of these layers."""
        patterns = [("keep", pattern) for pattern in self.keep]
        patterns += [(f"rules.{name}.match", rule.match) for name, rule in self.rules.items()]
        for key, pattern in patterns:
            if not any(re.search(pattern, name) for name in names):
                raise ConfigError(f"quantizer.policy.{key}: {pattern!r} matches no layer, for example not {names[0]!r}")
        kinds = {bool(_ATTENTION.search(name)) for name in names}
        if self.component != "all" and (self.component == "attention") not in kinds:
            raise ConfigError(
                f"quantizer.policy.component={self.component}: no layer of this model is known as such, for example "
                f"not {names[0]!r}; use keep with regular expressions"
            )
