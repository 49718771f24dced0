"""The quantized key-value cache as a runtime operation: which modules get it, and what it does when they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from quantbench.core.component import component
from quantbench.core.errors import ModelError
from quantbench.core.mixing import Mixing
from quantbench.formats.kv import KVCache, attention
from quantbench.formats.rotary import Style
from quantbench.models.attention import ROTARY, Attend, by_group, check_arguments, masks, of_heads, route
from quantbench.models.handle import Removable
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.fold import check_unchanged
from quantbench.pipeline.rotary import rotary_of, rotary_styles
from quantbench.transforms.hadamard import Orthogonal, shortfall

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_TOKENS = 8
MOST_SCORES = 1 << 20
"""Elements of the scores that are held at once."""


@component
class QuantizeKVCache:
    """Attention of a module with the keys and values that a quantized cache gives back (`quantbench.formats.kv`).

    heads, key_width, value_width  key-value heads, and channels of each
    seed  of the rotations of keys and of values, if they are rotated
    rotary  the style of the rotary embedding, if keys are stored without it
    """

    mixing: ClassVar[Mixing] = Mixing.EARLIER
    whole_sequences: ClassVar[bool] = True

    module: str
    cache: KVCache
    heads: int
    key_width: int
    value_width: int
    seed: str | None = None
    rotary: Style | None = None

    @property
    def elements(self) -> int:
        """Elements of the cache for one token."""
        return self.heads * (self.key_width + self.value_width)

    @property
    def notes(self) -> list[str]:
        """What a record must say: the cache, and matrices that are no Hadamard matrices."""
        widths = [] if self.seed is None else sorted({self.key_width, self.value_width})
        return [self.cache.note, *(note for width in widths if (note := shortfall(width)) is not None)]

    @property
    def bits(self) -> float:
        """Bits a quantized element takes, everything stored counted."""
        return self.cache.bits_per_element(self.key_width, self.value_width)

    def install(self, module: nn.Module) -> Removable:
        """Route attention here; sequences of at most `residual` tokens are left to the module's own."""
        rotation = value_rotation = None
        if self.seed is not None:
            rotation = Orthogonal(self.key_width, self.seed).matrix().float()
            value_rotation = Orthogonal(self.value_width, f"{self.seed} values").matrix().float()

        def attend(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, arguments: Mapping[str, Any]
        ) -> Tensor:
            try:
                return attend_by_heads(
                    query, key, value, mask, arguments, self.cache, rotation, value_rotation, self.rotary
                )
            except ValueError as error:
                raise ModelError(f"{self.module}: {error} in its keys or values") from error

        return route(module, attend, self.cache.residual)


def cache_operations(
    cache: KVCache, model: PreTrainedModel, prefix: str, blocks: nn.ModuleList
) -> list[list[QuantizeKVCache]]:
    """The operations of each block. Raises ModelError for a model whose attention is out of reach."""
    found = find_attention(model, prefix, blocks)
    styles = rotary_styles(model, prefix, blocks) if cache.pre_rope else {}
    return [
        [
            QuantizeKVCache(
                module=name,
                cache=cache,
                heads=key[0],
                key_width=key[1],
                value_width=value[1],
                seed=f"{cache.rotation_seed} {name}" if cache.rotate else None,
                rotary=styles.get(name),
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
            hooks = [
                route(module, _noting(f"{name}.{inner}", seen), 0)
                for inner, module in block.named_modules()
                if hasattr(getattr(module, "config", None), "_attn_implementation")
            ]
            try:
                probed = run_block(block, states, call)
            finally:
                for hook in hooks:
                    hook.remove()
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
        return attend_by_heads(query, key, value, mask, arguments, None, None)

    return attend


def attend_by_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    arguments: Mapping[str, Any],
    cache: KVCache | None,
    rotation: Tensor | None,
    value_rotation: Tensor | None = None,
    rotary: Style | None = None,
) -> Tensor:
    """Output [B, T, H, d], so many key-value heads at a time that their scores take at most MOST_SCORES elements."""
    check_arguments(query, key, mask, arguments)
    allowed, bias = masks(query, mask, arguments)
    scale = arguments.get("scaling")
    heads = key.shape[1]
    query = query.reshape(len(query), heads, -1, *query.shape[2:])
    allowed, bias = by_group(allowed, heads), by_group(bias, heads)
    positions = None if rotary is None else rotary_of(arguments[ROTARY], rotary, heads=3)
    step = max(1, MOST_SCORES * heads // (query[..., 0].numel() * key.shape[2]))
    parts = []
    for some in (slice(h, h + step) for h in range(0, heads, step)):
        output = attention(
            query[:, some],
            key[:, some, None],
            value[:, some, None],
            cache,
            scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
            allowed=of_heads(allowed, some),
            bias=of_heads(bias, some),
            softcap=arguments.get("softcap"),
            rotation=rotation,
            value_rotation=value_rotation,
            rotary=positions,
        )
        parts.append(output.flatten(1, 2))
    return torch.cat(parts, dim=1).transpose(1, 2).contiguous()
