"""How a model's attention rotates its keys: found by trying, without knowing the model's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.formats.rotary import Rotary, Style
from quantbench.models.attention import ROTARY, Attend, route
from quantbench.pipeline.capture import BlockCall, capture, run_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_TOKENS = 8
_STYLES: tuple[Style, ...] = ("half", "interleaved")


@torch.no_grad()
def rotary_styles(model: PreTrainedModel, prefix: str, blocks: nn.ModuleList) -> dict[str, Style]:
    """The style of each attention module, by its name.

    A few tokens run through each block as it is, and with cos = 1, sin = 0, which leaves keys as they are before the
    embedding. Raises ModelError for a block that is given no rotary embedding, or one of another form.
    """
    tokens = torch.arange(_PROBE_TOKENS)[None] % model.config.get_text_config().vocab_size
    captured = capture(model, blocks, tokens)
    states, found = captured.hidden[0], dict[str, Style]()
    for index, block in enumerate(blocks):
        name, call = f"{prefix}.{index}", captured.calls[index][0]
        given = call.kwargs.get(ROTARY)
        if not isinstance(given, tuple) or len(given) != 2:
            raise _refused(name, "its attention is given no rotary embedding")
        cos, sin = given
        still = {**call.kwargs, ROTARY: (torch.ones_like(cos), torch.zeros_like(sin))}
        plain = _keys(name, block, states, dataclasses.replace(call, kwargs=still))
        turned = _keys(name, block, states, call)
        for module, key in turned.items():
            found[module] = _style(module, plain[module].float(), key.float(), cos, sin)
        states = run_block(block, states, call)
    return found


def rotary_of(given: Any, style: Style, heads: int) -> Rotary:
    """The embedding that a module is given as (cos, sin) [B, T, r], for keys with `heads` dimensions before [T, d]."""
    cos, sin = (part.reshape(len(part), *[1] * (heads - 1), *part.shape[-2:]) for part in given)
    return Rotary(cos, sin, style)


def _style(module: str, plain: Tensor, turned: Tensor, cos: Tensor, sin: Tensor) -> Style:
    for style in _STYLES:
        tried = rotary_of((cos, sin), style, heads=2)
        again = tried.apply(plain)
        near = again.shape == turned.shape and torch.allclose(again, turned, atol=1e-2 * float(turned.abs().amax()))
        if near and torch.allclose(tried.undo(again), plain, atol=1e-2 * float(plain.abs().amax())):
            return style
    raise _refused(module, "its rotary embedding has no known form")


def _keys(name: str, block: nn.Module, states: Tensor, call: BlockCall) -> dict[str, Tensor]:
    """The keys [B, H, T, d] of each attention module of the block."""
    seen: dict[str, Tensor] = {}

    def noting(module: str) -> Attend:
        def attend(
            query: Tensor, key: Tensor, _value: Tensor, _mask: Tensor | None, _arguments: Mapping[str, Any]
        ) -> Tensor:
            seen[module] = key
            return torch.zeros_like(query).transpose(1, 2)

        return attend

    hooks = [
        route(module, noting(f"{name}.{inner}"), 0)
        for inner, module in block.named_modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    ]
    try:
        run_block(block, states, call)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(
        f"kv_cache.pre_rope: {name}: {reason}. Set quantizer.kv_cache.pre_rope=false, or choose another model"
    )
