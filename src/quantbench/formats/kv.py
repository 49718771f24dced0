"""The key-value cache in few bits: per token, or KIVI, applied as a decoding loop with such a cache would.

Paper      Liu et al.: "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", ICML 2024 (arXiv 2402.02750)
Objective  o_t = sum_s softmax_s(scale q_t . k_ts) v_ts, where k_ts is K~_s if the cache holds key s quantized when
           query t is decoded, and K_s otherwise; v_ts likewise. For all queries at once: two score matrices and a mask.
Symbols    Q [.., T, d], K, V [.., T, d] one head's queries, keys, values; K~, V~ what the cache gives back
           t, s positions of a query and of a key, from 0;  R residual window;  g group size;  n kept first tokens

1. grids   keys="token": g neighbouring channels of one token share a scale. keys="channel" (KIVI): g neighbouring
           tokens of one channel do. Values: g neighbouring channels of one token, always. Any format of weights takes
           the place of the integers: its rows are a token's channels, or R tokens of a channel.
2. when    Step t of the authors' decoding loop attends first and then quantizes, so query t sees
             values, and keys per token: quantized for s < t - R. Its own and the R before it are full precision.
             keys per channel:           quantized for s < floor(t / R) R. Blocks of R tokens leave the residual whole.
           The first n tokens are never quantized, and blocks begin behind them: models attend to the first tokens
           whatever these say (attention sinks, arXiv 2309.17453), and their keys are outliers.
3. scores  S_ts = scale q_t . K~_s where quantized, scale q_t . K_s elsewhere; then soft cap, bias, mask, softmax: P
4. output  O = (P on full precision) V + (P on quantized) V~

With R >= T nothing is quantized, and O is the attention in full precision, bit for bit. Every token counts as decoded:
the authors' code attends to a prompt in full precision, a single quantized pass over the sequence would be harsher.
A rotation U [d, d], orthogonal, leaves q . k as it is: keys are stored as K U, and queries meet them as Q U. Another,
R [d, d], is for values: stored as V R, and what is mixed of them is turned back: O = .. + (P on quantized) V~ R^T.
Keys may be stored without their rotary embedding, which mixes channels of different sizes (KVQuant, arXiv 2401.18079),
and get it when they are read: K~_s = RoPE_s(grid(RoPE_s^-1(K_s) U) U^T).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import Format
from quantbench.formats.grid import Bits, Convention, ScaleDtype, check_convention
from quantbench.formats.kv_grid import KVGrid
from quantbench.formats.rotary import Rotary

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
    format, value_format  any format of weights instead of integers, with scales taken from what is stored: then bits,
                value_bits and group_size are null. value_format null: as the keys'
    sinks       so many first tokens of a sequence stay in full precision
    pre_rope    keys are stored before the rotary embedding
    residual    newest tokens of the cache in full precision, beside the query's own; KIVI: a multiple of group_size
    rotate      keys and values are stored after randomized Hadamard rotations of each head; queries are rotated as keys
                are, and outputs turned back
    """

    keys: Literal["token", "channel"]
    bits: Bits | None = None
    value_bits: Bits | None = None
    symmetric: bool = False
    scale_convention: Convention | None = None
    group_size: Annotated[int, Field(ge=1)] | Literal["head"] | None = None
    format: Format | None = None
    value_format: Format | None = None
    sinks: Annotated[int, Field(ge=0)] = 0
    pre_rope: bool = False
    residual: Annotated[int, Field(ge=0)]
    scale_dtype: ScaleDtype = "float16"
    rotate: bool = False
    rotation_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        self._check_grids()
        if self.keys == "token":
            return
        if self.group_size == "head":
            raise ConfigError("keys='channel' has groups of tokens: group_size must be a number, not 'head'")
        group = self._grid(values=False).group(self.residual)
        if self.residual == 0 or self.residual % group:
            raise ConfigError(
                f"keys='channel' quantizes residual tokens at a time, in groups: residual={self.residual} must be a "
                f"multiple of group_size={group}, and not 0"
            )

    def _check_grids(self) -> None:
        """Integers or formats, and no token of a format that others have a part in."""
        integers = {"bits": self.bits, "group_size": self.group_size}
        for key, value in integers.items():
            if value is None and self.format is None:
                raise ConfigError(f"{key}: this option is required where no format is given")
        if self.format is None and self.value_format is not None:
            raise ConfigError("value_format needs format: give the keys' format, too, or value_format=null")
        for key, value in {**integers, "value_bits": self.value_bits}.items():
            if value is not None and self.format is not None:
                raise ConfigError(f"{key}={value} has no effect beside a format, which has its own: set it to null")
        for key in ("format", "value_format"):
            chosen = getattr(self, key)
            if chosen is not None and FormatActivation(format=chosen, dynamic=True).mixing is not Mixing.NONE:
                raise ConfigError(
                    f"{key}: tokens come one by one and share no scale: {key}.group_size must not be 'tensor', and "
                    f"{key}.double_quantization null"
                )

    def _grid(self, *, values: bool) -> KVGrid:
        """The grid of keys, or of values."""
        own = (self.value_bits, self.value_format) if values else (None, None)
        bits, chosen = own[0] or self.bits, own[1] or self.format
        return KVGrid(bits, self.group_size, self.symmetric, self.scale_convention, self.scale_dtype, chosen)

    # 1. grids

    def stored_keys(self, K: Tensor) -> Tensor:
        """K~ [.., T, d], in K's dtype. Raises ValueError for NaN, infinity, and scales that overflow `scale_dtype`."""
        if self.keys == "token":
            return self._grid(values=False).stored(K)
        kept, rest = K[..., : self.sinks, :], K[..., self.sinks :, :].mT
        whole = rest.shape[-1] - rest.shape[-1] % self.residual  # what has not left the residual is seen by no query
        blocks = rest[..., :whole].reshape(*rest.shape[:-1], -1, self.residual)
        stored = self._grid(values=False).stored(blocks).flatten(-2) if whole else rest[..., :0]
        return torch.cat([kept, stored.mT, rest[..., whole:].mT], dim=-2)

    def stored_values(self, V: Tensor) -> Tensor:
        """V~ [.., T, d], like `stored_keys`."""
        return self._grid(values=True).stored(V)

    # 2. when

    def keys_quantized(self, length: int) -> Tensor:
        """Whether query t sees key s quantized, bool [T, T]: [t, s]."""
        if self.keys == "token":
            return self.values_quantized(length)
        t, s = torch.arange(length)[:, None] - self.sinks, torch.arange(length) - self.sinks
        return (s >= 0) & (s < t // self.residual * self.residual)

    def values_quantized(self, length: int) -> Tensor:
        """Whether query t sees value s quantized, bool [T, T]: [t, s]."""
        t, s = torch.arange(length)[:, None], torch.arange(length)
        return (s >= self.sinks) & (s < t - self.residual)

    # What it takes, and what it is called

    def bits_per_element(self, key_width: int, value_width: int) -> float:
        """Bits a quantized element takes on average over one head's key and value, scales and offsets counted."""
        row = self.residual if self.keys == "channel" else key_width
        total = key_width * self._grid(values=False).row_bits(row)
        total += value_width * self._grid(values=True).row_bits(value_width)
        return total / (key_width + value_width)

    @property
    def note(self) -> str:
        """What stands in a run's record."""
        values = self._grid(values=True).bits
        bits = f"{self.bits} bit" if values == self.bits else f"{self.bits} bit keys, {values} bit values"
        kind = "KIVI" if self.keys == "channel" and not self.symmetric else f"per {self.keys}"
        rotated = ", keys and values rotated" if self.rotate else ""
        grid = f"{kind} {bits}, groups of {self.group_size}{rotated}"
        if self.format is not None:
            other = "" if self.value_format is None else f" keys, {self.value_format} values"
            grid = f"per {self.keys} {self.format}{other}{rotated}"
        before = ", keys before the rotary embedding" if self.pre_rope else ""
        sinks = f", first {self.sinks} tokens kept" if self.sinks else ""
        return f"kv cache: {grid}{before}{sinks}, residual {self.residual}, applied causally"


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
    rotary: Rotary | None = None,
) -> Tensor:
    """O [.., n, T, d] for the n query heads Q [.., n, T, d] of each key-value head K, V [.., 1, T, d]; in float32.

    cache     None: full precision
    allowed   bool, bias float: broadcastable to [.., n, T, T]. What is not allowed is not attended to; bias is added
    softcap   scores become softcap tanh(scores / softcap) before bias and mask
    rotation, value_rotation  U, R [d, d], orthogonal: keys are quantized as K U, values as V R
    rotary    the positions in K, without which keys are quantized; None: with them
    """
    length = Q.shape[-2]
    queries, keys, values = Q.float(), K.float(), V.float()
    scores = queries @ keys.mT * scale  # 3.
    if cache is not None:
        met = queries
        if rotation is not None:
            U = rotation.to(queries)
            met, K = queries @ U, (keys @ U).to(K.dtype)
        if rotary is not None:
            plain = rotary.undo(keys)
            met, K = queries, (plain if rotation is None else plain @ U).to(K.dtype)
        stored = cache.stored_keys(K).float()
        if rotary is not None:
            stored = rotary.apply(stored if rotation is None else stored @ U.mT)
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
