"""The quantized key-value cache against a decoding loop that keeps one, as KIVI's authors' code does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.base import Format
from quantbench.formats.kv import KVCache, attention
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantize import quantize
from quantbench.formats.rotary import Rotary, Style
from quantbench.formats.scaled import ScaledFormat
from quantbench.transforms.hadamard import Orthogonal

LENGTH, WIDTH, SCALE = 11, 6, 0.4


def kivi(**options: Any) -> KVCache:
    given: dict[str, Any] = {"keys": "channel", "bits": 2, "group_size": 3, "residual": 3}
    return KVCache(**given | options)


def per_token(**options: Any) -> KVCache:
    given: dict[str, Any] = {"keys": "token", "bits": 4, "group_size": "head", "residual": 0}
    return KVCache(**given | options)


FP4 = ScaledFormat(element="e2m1", group_size="channel")


def in_format(format: Format, **options: Any) -> KVCache:
    given: dict[str, Any] = {"keys": "token", "format": format, "residual": 0}
    return KVCache(**given | options)


def drawn(length: int = LENGTH, width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of two heads, keys and values of the one they share; one key channel is far from zero.

    A group of two values would lose nothing: both are ends of its grid.
    """
    keys = random(1, 1, length, width, seed=1)
    keys[..., 2] += 8
    return random(1, 2, length, width, seed=0), keys, random(1, 1, length, width, seed=2)


def causal(length: int = LENGTH) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def attend(
    cache: KVCache | None, rotation: Tensor | None = None, tensors: Any = None, values: Tensor | None = None
) -> Tensor:
    query, key, value = drawn() if tensors is None else tensors
    allowed = causal(query.shape[2])
    return attention(query, key, value, cache, SCALE, allowed=allowed, rotation=rotation, value_rotation=values)


# The reference: one token after another, quantizing lists of numbers


def stored(numbers: list[float], bits: int) -> list[float]:
    """A group on KIVI's grid, scale and smallest value in float16."""
    low = float(torch.tensor(min(numbers)).half())
    scale = float(torch.tensor((max(numbers) - min(numbers)) / (2**bits - 1)).half()) or 2**-24
    return [low + scale * min(max(round((x - low) / scale), 0), 2**bits - 1) for x in numbers]


def stored_row(row: Tensor, bits: int | None, group: int, format: Format | None) -> Tensor:
    if format is not None:
        return quantize(row[None], format).dequantize()[0]
    assert bits is not None
    values = [float(x) for x in row]
    return torch.tensor([y for k in range(0, len(values), group) for y in stored(values[k : k + group], bits)])


class Cache:
    """Keys and values of the tokens decoded so far; `quantized` many of each are the oldest."""

    def __init__(self, cache: KVCache) -> None:
        self.options = cache
        self.group = cache.group_size if isinstance(cache.group_size, int) else WIDTH
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.keys: list[Tensor] = []
        self.full_keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.full_values: list[Tensor] = []

    def step(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The attention of one query; then whatever has left the residual is quantized."""
        if len(self.kept) < self.options.sinks:
            self.kept.append((key, value))
        else:
            self.full_keys.append(key)
            self.full_values.append(value)
        first_keys, first_values = ([one[i] for one in self.kept] for i in (0, 1))
        weights = (SCALE * torch.stack([*first_keys, *self.keys, *self.full_keys]) @ query).softmax(0)
        output = weights @ torch.stack([*first_values, *self.values, *self.full_values])
        self._quantize()
        return output

    def _quantize(self) -> None:
        options, value_bits = self.options, self.options.value_bits or self.options.bits
        own, of_values = options.format, options.value_format or options.format
        if options.keys == "channel" and len(self.full_keys) == options.residual:
            block = torch.stack(self.full_keys)
            columns = [stored_row(block[:, channel], options.bits, self.group, own) for channel in range(WIDTH)]
            self.keys += list(torch.stack(columns, dim=1))
            self.full_keys = []
        if options.keys == "token" and len(self.full_keys) > options.residual:
            self.keys.append(stored_row(self.full_keys.pop(0), options.bits, self.group, own))
        if len(self.full_values) > options.residual:
            self.values.append(stored_row(self.full_values.pop(0), value_bits, self.group, of_values))


@pytest.mark.parametrize(
    "cache",
    [
        kivi(),
        kivi(residual=6),
        kivi(residual=9),
        kivi(group_size=5, residual=5, value_bits=3),
        per_token(),
        per_token(bits=2, residual=3),
        per_token(bits=3, group_size=4, residual=1, value_bits=2),
        kivi(sinks=2),
        per_token(bits=2, residual=3, sinks=4),
        in_format(FP4),
        in_format(Nvfp4Format(group_size=4), residual=2, sinks=1),
        in_format(FP4, value_format=MxFormat(element="e2m1", group_size=2)),
        in_format(FP4, keys="channel", residual=4),
        in_format(Nvfp4Format(group_size=2), keys="channel", residual=4, sinks=1),
    ],
)
def test_all_queries_at_once_see_what_a_decoding_loop_gives_them(cache: KVCache) -> None:
    query, key, value = drawn()
    found = attend(cache)
    for head in range(2):
        loop = Cache(cache)
        steps = [loop.step(query[0, head, t], key[0, 0, t], value[0, 0, t]) for t in range(LENGTH)]
        torch.testing.assert_close(found[0, head], torch.stack(steps), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, attend(None), atol=1e-3)


@pytest.mark.parametrize("cache", [kivi(residual=12), per_token(bits=2, residual=11)])
def test_a_residual_as_long_as_the_sequence_is_full_precision_bit_for_bit(cache: KVCache) -> None:
    assert torch.equal(attend(cache), attend(None))
    assert torch.equal(attend(cache, Orthogonal(WIDTH, "x").matrix().float()), attend(None))


def test_what_comes_later_changes_nothing_before() -> None:
    query, key, value = drawn()
    nvfp4 = in_format(Nvfp4Format(group_size=2), keys="channel", residual=4, sinks=1)
    for cache in (kivi(), per_token(), nvfp4):
        before = attend(cache)
        for tensor in (query, key, value):
            tensor[..., 8:, :] = random(*tensor[..., 8:, :].shape, seed=9) * 5
        after = attend(cache, tensors=(query, key, value))
        assert torch.equal(before[..., :8, :], after[..., :8, :])
        assert not torch.equal(before, after)


@pytest.mark.parametrize("make", [kivi, per_token])
def test_error_falls_with_bits(make: Any) -> None:
    errors = [float((attend(make(bits=bits)) - attend(None)).norm()) for bits in (8, 4, 3, 2)]
    assert errors == sorted(errors)
    assert errors[0] < 0.05 * errors[-1]


def test_kivi_keeps_a_key_channel_that_is_far_from_zero_and_per_token_does_not() -> None:
    key = drawn()[1]
    error = {cache.keys: float((cache.stored_keys(key) - key).norm()) for cache in (kivi(), per_token(bits=2))}
    assert error["channel"] < 0.5 * error["token"]


def test_a_grid_holds_its_ends_and_evenly_spaced_values_exactly() -> None:
    cache = per_token(bits=2, group_size=4)
    exact = torch.tensor([[5.0, 6.0, 7.0, 8.0, -3.0, -1.0, 0.0, 3.0]])
    assert cache.stored_values(exact).tolist() == [[5, 6, 7, 8, -3, -1, 1, 3]]
    assert cache.stored_values(torch.full((1, 4), 0.25)).tolist() == [[0.25] * 4]


def test_a_symmetric_grid_is_that_of_its_convention() -> None:
    narrow = per_token(bits=3, symmetric=True, scale_convention="narrow_range")
    assert narrow.stored_keys(torch.tensor([3.0, -2.4, 1.1])).tolist() == [3, -2, 1]


def test_a_short_last_group_has_a_scale_of_its_own() -> None:
    x = random(3, 10, seed=4)
    whole = per_token(group_size=4).stored_values(x)
    assert torch.equal(whole[:, 8:], per_token(group_size=2).stored_values(x[:, 8:]))
    assert torch.equal(whole[:, :8], per_token(group_size=4).stored_values(x[:, :8]))


def test_values_keep_their_dtype() -> None:
    assert per_token().stored_keys(random(2, 8, seed=0).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("cache", "bits"),
    [
        (kivi(group_size=32, residual=128), 2 + 32 / 32),
        (per_token(), 4 + 32 / 64),
        (per_token(symmetric=True, scale_convention="full_range"), 4 + 16 / 64),
        (per_token(group_size=48), 4 + 2 * 32 / 64),
        (kivi(group_size=64, residual=64, bits=4, value_bits=2), (4 + 2) / 2 + 32 / 64),
        (per_token(scale_dtype="float32", bits=8), 8 + 64 / 64),
        (in_format(FP4), 4 + 32 / 64),
        (in_format(Nvfp4Format()), 4 + 8 / 16 + 32 / 64),
        (in_format(FP4, keys="channel", residual=128), 4 + (32 / 128 + 32 / 64) / 2),
    ],
)
def test_effective_bits_count_scales_and_offsets(cache: KVCache, bits: float) -> None:
    assert cache.bits_per_element(64, 64) == bits


def test_effective_bits_weigh_keys_and_values_by_their_width() -> None:
    assert per_token(bits=2, value_bits=8).bits_per_element(96, 32) == (96 * 2 + 32 + 32 * 8 + 32) / 128


@pytest.mark.parametrize("width", [1, 2, 6, 8, 15, 64, 80, 96])
def test_a_rotation_of_any_width_is_orthogonal(width: int) -> None:
    rotation = Orthogonal(width, "seed").matrix()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(width).double(), rtol=0, atol=1e-6)
    if width & (width - 1) == 0:
        torch.testing.assert_close(rotation.abs(), torch.full_like(rotation, width**-0.5), rtol=0, atol=1e-6)


def test_a_rotation_leaves_the_function_as_it_is_and_spreads_an_outlier_channel() -> None:
    query, key, value = drawn(width=64)
    query /= 8
    key[..., 7] *= 20
    rotation = Orthogonal(64, "0").matrix().float()
    plain = attend(None, tensors=(query, key, value))
    turned = attend(None, tensors=(query @ rotation, key @ rotation, value))
    torch.testing.assert_close(turned, plain, rtol=1e-4, atol=1e-5)
    error = {}
    for name, turn in (("plain", None), ("rotated", rotation)):
        error[name] = float((attend(per_token(bits=4, value_bits=8), turn, (query, key, value)) - plain).norm())
    assert error["rotated"] < error["plain"]


def test_rotated_values_are_turned_back_and_an_outlier_channel_of_them_is_spread() -> None:
    query, key, value = drawn(width=64)
    query /= 8
    value[..., 7] *= 20
    tensors, rotation = (query, key, value), Orthogonal(64, "0").matrix().float()
    plain = attend(None, tensors=tensors)
    fine = per_token(bits=8, scale_dtype="float32")
    assert float((attend(fine, None, tensors, rotation) - plain).norm()) < 0.02 * float(plain.norm())
    coarse = per_token(bits=8, value_bits=4)
    errors = [float((attend(coarse, None, tensors, turn) - plain).norm()) for turn in (rotation, None)]
    assert errors[0] < 0.5 * errors[1]
    # What is stored is V R, on the grid of its own; what is read is that times R^T.
    T = value.shape[2]
    last = attend(coarse, None, tensors, rotation)[0, 0, -1]
    scores = (query[0, 0, -1] @ key[0, 0].T * SCALE).clone()
    scores[:-1] = query[0, 0, -1] @ coarse.stored_keys(key)[0, 0, :-1].T * SCALE
    read = torch.cat([coarse.stored_values(value @ rotation)[0, 0, : T - 1] @ rotation.T, value[0, 0, T - 1 :]])
    torch.testing.assert_close(last, scores.softmax(0) @ read, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_what_cannot_be_stored_is_refused(bad: float) -> None:
    key = drawn()[1]
    key[0, 0, 3, 1] = bad
    for cache in (kivi(), per_token(), per_token(symmetric=True, scale_convention="narrow_range")):
        with pytest.raises(ValueError, match=r"NaN, infinity, or a range that overflows scale_dtype='float16'"):
            cache.stored_keys(key)


NO_INTEGERS: dict[str, Any] = {"bits": None, "group_size": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": 5}, r"residual=5 must be a multiple of group_size=3, and not 0"),
        ({"residual": 0}, r"residual=0 must be a multiple"),
        ({"group_size": "head"}, r"keys='channel' has groups of tokens"),
        ({"symmetric": True}, r"symmetric=true needs scale_convention"),
        ({"bits": None}, r"^bits: this option is required where no format is given"),
        ({"format": FP4}, r"^bits=2 has no effect beside a format"),
        ({"value_format": FP4}, r"^value_format needs format"),
        (
            NO_INTEGERS | {"format": ScaledFormat(element="e4m3", group_size="tensor")},
            "group_size must not be 'tensor'",
        ),
        (NO_INTEGERS | {"format": MxFormat(element="e2m1", group_size=2)}, r"residual=3 must be a multiple of .*=2"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kivi(**options)


def test_the_note_says_what_was_done() -> None:
    usual = kivi(residual=128, group_size=32)
    assert usual.note == "kv cache: KIVI 2 bit, groups of 32, residual 128, applied causally"
    rotated = per_token(value_bits=2, rotate=True).note
    assert rotated == (
        "kv cache: per token 4 bit keys, 2 bit values, groups of head, keys and values rotated, residual 0, "
        "applied causally"
    )
    kept = per_token(sinks=4, pre_rope=True).note
    assert kept == (
        "kv cache: per token 4 bit, groups of head, keys before the rotary embedding, first 4 tokens kept, residual 0, "
        "applied causally"
    )
    assert in_format(FP4).note.startswith("kv cache: per token ScaledFormat(element='e2m1'")


def rotary(style: Style, width: int = WIDTH, whole: bool = True) -> Rotary:
    angles = torch.arange(LENGTH)[:, None] * torch.tensor([1.0, 0.1, 0.01][: width // 2])
    if whole:
        angles = torch.cat([angles, angles], dim=1) if style == "half" else angles.repeat_interleave(2, dim=1)
    return Rotary(1.3 * angles.cos(), 1.3 * angles.sin(), style)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_the_rotary_embedding_is_undone_and_turns_pairs_by_their_angle(style: Style) -> None:
    x = random(1, 2, LENGTH, WIDTH, seed=4)
    for width in (WIDTH, WIDTH - 2):  # all channels, and some of them
        turned = rotary(style, width).apply(x)
        torch.testing.assert_close(rotary(style, width).undo(turned), x)
        torch.testing.assert_close(turned[..., width:], x[..., width:])
        assert not torch.allclose(turned[..., 1:, :], x[..., 1:, :], atol=0.1)
    torch.testing.assert_close(rotary(style, whole=False).apply(x), rotary(style).apply(x))
    second = 3 if style == "half" else 1
    pair = torch.view_as_complex(torch.stack([x[..., 0], x[..., second]], dim=-1))
    expected = torch.view_as_real(pair * 1.3 * torch.exp(1j * torch.arange(LENGTH)))
    torch.testing.assert_close(rotary(style).apply(x)[..., [0, second]], expected)


def test_keys_before_the_rotary_embedding_are_stored_as_they_are_there() -> None:
    query, plain, value = drawn()
    embedding = rotary("half")
    key = embedding.apply(plain)
    for cache in (kivi(), per_token(bits=2), kivi(sinks=2)):
        found = attention(query, key, value, cache, SCALE, allowed=causal(), rotary=embedding)
        given = embedding.apply(cache.stored_keys(plain))  # what a cache of plain keys gives back, turned when read
        scores = SCALE * torch.where(cache.keys_quantized(LENGTH), query @ given.mT, query @ key.mT)
        P = scores.masked_fill(~causal(), -torch.inf).softmax(-1)
        seen = cache.values_quantized(LENGTH)
        expected = P.masked_fill(seen, 0) @ value + P.masked_fill(~seen, 0) @ cache.stored_values(value)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        turn = Orthogonal(WIDTH, "x").matrix().float()
        turned = attention(query, key, value, cache, SCALE, causal(), rotation=turn, rotary=embedding)
        assert not torch.allclose(turned, found, atol=1e-4)
    exact = per_token(bits=8, scale_dtype="float32")
    near = attention(query, key, value, exact, SCALE, causal(), rotation=turn, rotary=embedding)
    torch.testing.assert_close(near, attend(None, tensors=(query, key, value)), rtol=0.05, atol=0.05)
