"""Attention by a function of ours, on every model that computes it through transformers' attention interface.

There, an attention module looks its function up by the name in its `config`. While a routed module runs, and only then,
it sees a copy of its configuration that names our function, which gets queries, keys and values after the rotary
embedding. The model's own configuration stays as it is, and with it the masks the model makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from quantbench.core.errors import ModelError
from quantbench.models.handle import Removable

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, Mapping[str, Any]], Tensor]
"""(query [B, H, T, d], key, value [B, H_kv, T, d], mask, other arguments of the interface) -> output [B, T, H, d]."""

ROTARY = "position_embeddings"
"""What (cos, sin) of the rotary embedding are called, among what a module is given and what our function is."""

_INTERFACE = "quantbench_kv_cache"
_ATTEND, _GIVEN = "_quantbench_attend", "_quantbench_given"
_USED = frozenset({"scaling", "softcap", "sliding_window", "is_causal", "position_bias", ROTARY})
_MUST_BE_OFF = frozenset({"dropout", "output_attentions"})
_WITHOUT_EFFECT = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_hidden_states", "output_router_logits", "return_dict"}
)


class _Route:
    """Removes several hooks."""

    def __init__(self, *hooks: Removable) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def route(module: nn.Module, attend: Attend, residual: int) -> Removable:
    """Let the module compute attention by `attend` whenever it reads more than `residual` tokens."""
    original: Any = module.config
    routed = copy.copy(original)
    routed._attn_implementation = {"": _INTERFACE}  # a plain name would be set in configurations inside this one, too
    ALL_ATTENTION_FUNCTIONS.register(_INTERFACE, _routed_attention)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        if states.shape[1] > residual:
            module.config = routed
            setattr(module, _ATTEND, attend)
            setattr(module, _GIVEN, {ROTARY: kwargs[ROTARY]} if kwargs.get(ROTARY) is not None else {})

    def after(_module: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        module.config = original
        module.__dict__.pop(_ATTEND, None)
        module.__dict__.pop(_GIVEN, None)

    return _Route(
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, always_call=True),
    )


def _routed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
) -> tuple[Tensor, None]:
    """What transformers calls instead of its own attention functions."""
    given = {**getattr(module, _GIVEN), **arguments}
    return getattr(module, _ATTEND)(query, key, value, attention_mask, given), None


def check_arguments(query: Tensor, key: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]) -> None:
    """Raise ModelError for arguments of the interface that would change the result in a way not computed here."""
    given = {name: value for name, value in arguments.items() if value is not None}
    unknown = sorted(set(given) - _USED - _MUST_BE_OFF - _WITHOUT_EFFECT)
    if unknown:
        raise ModelError(
            f"kv_cache: this model's attention is called with {', '.join(unknown)}, which quantbench's does not know. "
            "Choose a recipe with kv_cache: null, or another model."
        )
    on = sorted(name for name in _MUST_BE_OFF if given.get(name))
    if on:
        raise ModelError(f"kv_cache: attention is called with {on[0]}={given[on[0]]}, which is not supported")
    if query.shape[2] != key.shape[2]:
        raise ModelError(
            f"kv_cache: attention of {query.shape[2]} queries to {key.shape[2]} keys; whole sequences are wanted, with "
            "use_cache=False"
        )
    if given.get("is_causal") is False and mask is None:
        raise ModelError("kv_cache: attention that is not causal has no cache")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 4):
        raise ModelError("kv_cache: the mask is not of the shape [batch, heads, queries, keys]")


def masks(query: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """(allowed, bias): the model's own mask, or a causal one with the sliding window; and what is added to scores."""
    bias = arguments.get("position_bias")
    if mask is None:
        length = query.shape[2]
        allowed = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        window = arguments.get("sliding_window")
        return (allowed if window is None else allowed.triu(1 - window))[None, None], bias
    if mask.dtype == torch.bool:
        return mask, bias
    return None, mask.float() if bias is None else mask.float() + bias.float()


def by_group(mask: Tensor | None, heads: int) -> Tensor | None:
    """A mask [B, 1 or H, T, T] as [B, 1 or key-value heads, 1 or queries of each, T, T]."""
    return mask if mask is None else mask.reshape(len(mask), 1 if mask.shape[1] == 1 else heads, -1, *mask.shape[2:])


def of_heads(mask: Tensor | None, some: slice) -> Tensor | None:
    """The part of a grouped mask for some key-value heads."""
    return mask if mask is None or mask.shape[1] == 1 else mask[:, some]
