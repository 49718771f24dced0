"""Attention with a quantized key-value cache, on every model that computes attention through transformers' interface.

There, an attention module looks its function up by the name in its `config`. While a routed module runs, and only then,
it sees a copy of its configuration that names a function of ours, which gets queries, keys and values after the rotary
embedding. The model's own configuration stays as it is, and with it the masks the model makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from quantbench.component import component
from quantbench.errors import ModelError
from quantbench.formats.kv import KVCache, attention
from quantbench.models.handle import Removable
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.fold import check_unchanged
from quantbench.transforms.head_rotation import random_signs, randomized_hadamard

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, Mapping[str, Any]], Tensor]
"""(query [B, H, T, d], key, value [B, H_kv, T, d], mask, other arguments of the interface) -> output [B, T, H, d]."""

_INTERFACE = "quantbench_kv_cache"
_ATTEND = "_quantbench_attend"
_PROBE_TOKENS = 8
_SCORES = 1 << 20

_USED = frozenset({"scaling", "softcap", "sliding_window", "is_causal", "position_bias"})
_MUST_BE_OFF = frozenset({"dropout", "output_attentions"})
_WITHOUT_EFFECT = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_hidden_states", "output_router_logits", "return_dict"}
)


@component
class QuantizeKVCache:
    """Attention of a module with what a quantized cache gives back. See quantbench.formats.kv.

    heads, key_width, value_width  key-value heads, and channels of each
    signs  int8 [key_width]: of the rotation of keys, if they are rotated
    """

    module: str
    cache: KVCache
    heads: int
    key_width: int
    value_width: int
    signs: Tensor | None = None

    @property
    def elements(self) -> int:
        """Elements of the cache for one token."""
        return self.heads * (self.key_width + self.value_width)

    @property
    def bits(self) -> float:
        """Bits a quantized element takes, everything stored counted."""
        return self.cache.bits_per_element(self.key_width, self.value_width)

    def install(self, module: nn.Module) -> Removable:
        """See RuntimeOp. Sequences of at most `residual` tokens are left to the module's own attention."""
        rotation = None if self.signs is None else randomized_hadamard(self.signs)

        def attend(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]
        ) -> Tensor:
            try:
                return _attend(query, key, value, mask, arguments, self.cache, rotation)
            except ValueError as error:
                raise ModelError(f"{self.module}: {error} in its keys or values") from error

        return _route(module, attend, self.cache.residual)


def cache_operations(
    cache: KVCache, model: PreTrainedModel, prefix: str, blocks: nn.ModuleList
) -> list[list[QuantizeKVCache]]:
    """The operations of each block. Raises ModelError for a model whose attention is out of reach."""
    found = find_attention(model, prefix, blocks)
    return [
        [
            QuantizeKVCache(
                module=name,
                cache=cache,
                heads=key[0],
                key_width=key[1],
                value_width=value[1],
                signs=random_signs(key[1], f"{cache.rotation_seed} {name}") if cache.rotate else None,
            )
            for name, (key, value) in modules.items()
        ]
        for modules in found
    ]


def find_attention(
    model: PreTrainedModel, prefix: str, blocks: nn.ModuleList
) -> list[dict[str, tuple[tuple[int, int], tuple[int, int]]]]:
    """For each block its attention modules by name, with (heads, width) of their keys and of their values.

    A few tokens run through each block twice: as it is, and with attention computed here in full precision. Raises
    ModelError for a block that does not ask for our attention, that passes an argument it does not know, or whose
    output it changes.
    """
    captured = capture(model, blocks, torch.arange(_PROBE_TOKENS)[None] % model.config.get_text_config().vocab_size)
    states, found = captured.hidden[0], []
    with torch.no_grad():
        for index, block in enumerate(blocks):
            name, call = f"{prefix}.{index}", captured.calls[index][0]
            seen: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
            routes = [
                _route(module, _noting(f"{name}.{inner}", seen), 0)
                for inner, module in block.named_modules()
                if hasattr(getattr(module, "config", None), "_attn_implementation")
            ]
            try:
                probed = run_block(block, states, call)
            finally:
                for route in routes:
                    route.remove()
            if not seen:
                raise ModelError(
                    f"kv_cache: {name} of model class {type(model).__name__} does not compute attention through "
                    "transformers' attention interface, so keys and values cannot be quantized. Choose a recipe with "
                    "kv_cache: null, or another model."
                )
            states = run_block(block, states, call)
            check_unchanged(states, probed, f"{name}: attention as kv_cache computes it")
            found.append(seen)
    return found


def _noting(name: str, seen: dict[str, tuple[tuple[int, int], tuple[int, int]]]) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]) -> Tensor:
        seen[name] = (key.shape[1], key.shape[3]), (value.shape[1], value.shape[3])
        return _attend(query, key, value, mask, arguments, None, None)

    return attend


class _Route:
    """Removes several hooks."""

    def __init__(self, *hooks: Removable) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _route(module: nn.Module, attend: Attend, residual: int) -> Removable:
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

    def after(_module: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        module.config = original
        module.__dict__.pop(_ATTEND, None)

    return _Route(
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, always_call=True),
    )


def _routed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
) -> tuple[Tensor, None]:
    """What transformers calls instead of its own attention functions."""
    return getattr(module, _ATTEND)(query, key, value, attention_mask, arguments), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    arguments: Mapping[str, Any],
    cache: KVCache | None,
    rotation: Tensor | None,
) -> Tensor:
    """Output [B, T, H, d], so many key-value heads at a time that their scores take at most _SCORES elements."""
    _refuse(query, key, mask, arguments)
    allowed, bias = _masks(query, mask, arguments)
    scale = arguments.get("scaling")
    heads = key.shape[1]
    query = query.reshape(len(query), heads, -1, *query.shape[2:])
    allowed, bias = _by_group(allowed, heads), _by_group(bias, heads)
    step = max(1, _SCORES * heads // (query[..., 0].numel() * key.shape[2]))
    parts = []
    for some in (slice(h, h + step) for h in range(0, heads, step)):
        output = attention(
            query[:, some],
            key[:, some, None],
            value[:, some, None],
            cache,
            scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
            allowed=_of_heads(allowed, some),
            bias=_of_heads(bias, some),
            softcap=arguments.get("softcap"),
            rotation=rotation,
        )
        parts.append(output.flatten(1, 2))
    return torch.cat(parts, dim=1).transpose(1, 2).contiguous()


def _refuse(query: Tensor, key: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]) -> None:
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


def _masks(query: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
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


def _by_group(mask: Tensor | None, heads: int) -> Tensor | None:
    """A mask [B, 1 or H, T, T] as [B, 1 or key-value heads, 1 or queries of each, T, T]."""
    return mask if mask is None else mask.reshape(len(mask), 1 if mask.shape[1] == 1 else heads, -1, *mask.shape[2:])


def _of_heads(mask: Tensor | None, some: slice) -> Tensor | None:
    """The part of a grouped mask for some key-value heads."""
    return mask if mask is None or mask.shape[1] == 1 else mask[:, some]
