"""Configuration and tokenizer of a checkpoint beside those of the base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbench.checkpoints.tensors import Reader
from quantbench.core.errors import ModelError

FUNCTION = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "rope_theta",
    "rope_type",
    "factor",
    "sliding_window",
)
"""Keys of a configuration that decide which function the weights make."""

OTHER_TOKENS = 0.01
"""Share of the base model's tokens that may have other ids or texts: added and placeholder tokens are written anew."""


def check_configuration(reader: Reader, base: Mapping[str, Any]) -> None:
    """Raise ModelError for a key that decides the model's function and has another value in the checkpoint."""
    found, base = _flat(reader.config()), _flat(base)
    differ = [
        f"{key} is {found[key]} in the checkpoint and {base[key]} in the base model"
        for key in FUNCTION
        if found.get(key) is not None and base.get(key) is not None and not _same(found[key], base[key])
    ]
    if differ:
        raise ModelError(f"the checkpoint is of another model: {'; '.join(differ)}")


def check_tokens(reader: Reader, base: Mapping[str, int]) -> None:
    """Raise ModelError for a tokenizer that gives other ids."""
    found = reader.tokens()
    if found is None:
        return
    differ = [token for token, index in base.items() if found.get(token) != index]
    if len(differ) > OTHER_TOKENS * len(base):
        token = differ[0]
        raise ModelError(
            f"the checkpoint has another tokenizer: {len(differ)} of the base model's {len(base)} tokens have another "
            f"id there or none, first {token!r}: {base[token]} in the base model, {found.get(token)} in the checkpoint"
        )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, with what it keeps of the rotary embedding in a mapping of its own beside the rest."""
    rotary = config.get("rope_parameters")
    return {**config, **(rotary if isinstance(rotary, Mapping) else {})}


def _same(one: Any, other: Any) -> bool:
    """Equal; floating-point numbers up to the rounding of float32, in which GGUF stores them."""
    if isinstance(one, float) or isinstance(other, float):
        try:
            return abs(float(one) - float(other)) <= 1e-6 * max(abs(float(one)), abs(float(other)))
        except (TypeError, ValueError):
            return False
    return bool(one == other)
