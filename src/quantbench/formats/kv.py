"""The key-value cache in few bits: per token, or KIVI, applied as a decoding loop with such a cache would.

Paper      Liu et al.: "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", ICML 2024 (arXiv 2402.02750)
Objective  o_t = sum_s softmax_s(scale q_t . k_ts) v_ts, where k_ts is K~_s if the cache holds key s quantized when
           query t is decoded, and K_s otherwise; v_ts likewise. For all queries at once: two score matrices and a mask.
Symbols    Q [.., T, d], K, V [.., T, d] one head's queries, keys, values; K~, V~ what the cache gives back
           t, s positions of a query and of a key, from 0;  R residual window;  g group size

1. grids   keys="token": g neighbouring channels of one token share a scale. keys="channel" (KIVI): g neighbouring
           tokens of one channel do. Values: g neighbouring channels of one token, always.
2. when    Step t of the authors' decoding loop attends first and then quantizes, so query t sees
             values, and keys per token: quantized for s < t - R. Its own and the R before it are full precision.
             keys per channel:           quantized for s < floor(t / R) R. Blocks of R tokens leave the residual whole.
3. scores  S_ts = scale q_t . K~_s where quantized, scale q_t . K_s elsewhere; then soft cap, bias, mask, softmax: P
4. output  O = (P on full precision) V + (P on quantized) V~

With R >= T nothing is quantized, and O is the attention in full precision, bit for bit. Every token counts as decoded:
the authors' code attends to a prompt in full precision, a single quantized pass over the sequence would be harsher.
A rotation U [d, d], orthogonal, leaves q . k as it is: keys are stored as K U, and queries meet them as Q U. Another,
R [d, d], is for values: stored as V R, and what is mixed of them is turned back: O = .. + (P on quantized) V~ R^T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import group_count
from quantbench.formats.grid import Bits, Convention, IntGrid, ScaleDtype, check_convention, containing_zero

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class KVCache(Part):
    """How keys and values are stored; nothing is calibrated. No effect on sequences of at most `residual` tokens.

    keys        "token": scales per token; "channel": KIVI's, per channel, `residual` tokens at a time
    bits, value_bits  of keys and of values; value_bits null: as the keys'
    symmetric   false: KIVI's grid, code x scale + smallest value of the group, both in scale_dtype. true: by convention
    group_size  values that share a scale; "head": all channels of a head (keys="token"). The last group may be short
    residual    newest tokens of the cache in full precision, beside the query's own; KIVI: a multiple of group_size
    rotate      keys and values are stored after randomized Hadamard rotations of each head; queries are rotated as keys
                are, and outputs turned back
    """

    keys: Literal["token", "channel"]
    bits: Bits
    value_bits: Bits | None = None
    symmetric: bool = False
    scale_convention: Convention | None = None
    group_size: Annotated[int, Field(ge=1)] | Literal["head"]
    residual: Annotated[int, Field(ge=0)]
    scale_dtype: ScaleDtype = "float16"
    rotate: bool = False
    rotation_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        if self.keys == "token":
            return
        if self.group_size == "head":
            raise ConfigError("keys='channel' has groups of tokens: group_size must be a number, not 'head'")
        if self.residual == 0 or self.residual % self.group_size:
            raise ConfigError(
                f"keys='channel' quantizes residual tokens at a time, in groups: residual={self.residual} must be a "
                f"multiple of group_size={self.group_size}, and not 0"
            )

    # 1. grids

    def stored_keys(self, K: Tensor) -> Tensor:
        """K~ [.., T, d], in K's dtype. Raises ValueError for NaN, infinity, and scales that overflow `scale_dtype`."""
        if self.keys == "token":
            return self._on_grid(K, self.bits)
        return self._on_grid(K.mT, self.bits).mT

    def stored_values(self, V: Tensor) -> Tensor:
        """V~ [.., T, d], like `stored_keys`."""
        return self._on_grid(V, self.bits if self.value_bits is None else self.value_bits)

    def _on_grid(self, x: Tensor, bits: int) -> Tensor:
        """x [.., n], each run of group_size values along the last dimension on a grid of its own."""
        width = x.shape[-1]
        group = width if self.group_size == "head" else self.group_size
        whole = width - width % group
        groups = x[..., :whole].reshape(*x.shape[:-1], -1, group).float()
        parts = [self._fit(groups, bits).flatten(-2)] if whole else []
        parts += [self._fit(x[..., whole:].float(), bits)] if whole < width else []
        return torch.cat(parts, dim=-1).to(x.dtype)

    def _fit(self, x: Tensor, bits: int) -> Tensor:
        """x float32 [.., g], each row on its grid."""
        low, high = x.aminmax(dim=-1, keepdim=True)
        if self.symmetric:
            grid = IntGrid(bits, self.scale_convention, self.scale_dtype)
            params = grid.fit(*containing_zero(low, high))
            values = grid.values(grid.levels(x, params), params)
        else:
            dtype = getattr(torch, self.scale_dtype)
            qmax = 2**bits - 1
            scale = ((high - low) / qmax).to(dtype).float().clamp(min=2.0**-24)
            low = low.to(dtype).float()
            values = ((x - low) / scale).round_().clamp_(0, qmax).mul_(scale).add_(low)
        if not bool(values.isfinite().all()):
            raise ValueError(f"NaN, infinity, or a range that overflows scale_dtype={self.scale_dtype!r}")
        return values

    # 2. when

    def keys_quantized(self, length: int) -> Tensor:
        """Whether query t sees key s quantized, bool [T, T]: [t, s]."""
        if self.keys == "token":
            return self.values_quantized(length)
        t, s = torch.arange(length)[:, None], torch.arange(length)
        return s < t // self.residual * self.residual

    def values_quantized(self, length: int) -> Tensor:
        """Whether query t sees value s quantized, bool [T, T]: [t, s]."""
        return torch.arange(length) < torch.arange(length)[:, None] - self.residual

    # What it takes, and what it is called

    def bits_per_element(self, key_width: int, value_width: int) -> float:
        """Bits a quantized element takes on average over one head's key and value, scales and offsets counted."""
        values = self.bits if self.value_bits is None else self.value_bits
        overhead = torch.finfo(getattr(torch, self.scale_dtype)).bits * (1 if self.symmetric else 2)
        total = float(key_width * self.bits + value_width * values)
        for width, along_tokens in ((key_width, self.keys == "channel"), (value_width, False)):
            group = width if self.group_size == "head" else self.group_size
            total += overhead * (width / group if along_tokens else group_count(width, group))
        return total / (key_width + value_width)

    @property
    def note(self) -> str:
        """What stands in a run's record."""
        values = self.bits if self.value_bits is None else self.value_bits
        bits = f"{self.bits} bit" if values == self.bits else f"{self.bits} bit keys, {values} bit values"
        kind = "KIVI" if self.keys == "channel" and not self.symmetric else f"per {self.keys}"
        rotated = ", keys and values rotated" if self.rotate else ""
        grid = f"{kind} {bits}, groups of {self.group_size}{rotated}"
        return f"kv cache: {grid}, residual {self.residual}, applied causally"


def attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    cache: KVCache | None,
    scale: float,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
    rotation: Tensor | None = None,
    value_rotation: Tensor | None = None,
) -> Tensor:
    """O [.., n, T, d] for the n query heads Q [.., n, T, d] of each key-value head K, V [.., 1, T, d]; in float32.

    cache     None: full precision
    allowed   bool, bias float: broadcastable to [.., n, T, T]. What is not allowed is not attended to; bias is added
    softcap   scores become softcap tanh(scores / softcap) before bias and mask
    rotation, value_rotation  U, R [d, d], orthogonal: keys are quantized as K U, values as V R
    """
    length = Q.shape[-2]
    queries, keys, values = Q.float(), K.float(), V.float()
    scores = queries @ keys.mT * scale  # 3.
    if cache is not None:
        met = queries
        if rotation is not None:
            U = rotation.to(queries)
            met, K = queries @ U, (keys @ U).to(K.dtype)
        stored = cache.stored_keys(K).float()
        scores = torch.where(cache.keys_quantized(length).to(Q.device), met @ stored.mT * scale, scores)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(torch.float32).min)
    P = scores.softmax(dim=-1)
    if cache is None:
        return (P @ values).to(Q.dtype)
    quantized = cache.values_quantized(length).to(Q.device)
    full = P.masked_fill(quantized, 0) @ values  # 4.
    if value_rotation is not None:
        V = (values @ value_rotation.to(values)).to(V.dtype)
    mixed = P.masked_fill(~quantized, 0) @ cache.stored_values(V).float()
    return (full + (mixed if value_rotation is None else mixed @ value_rotation.to(mixed).mT)).to(Q.dtype)
