"""Packing of codes to b bits is exact."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.formats import packing
from quantbench.formats.packing import pack_bits, unpack_bits


@settings(max_examples=60)
@given(
    bits=st.integers(1, 8),
    rows=st.integers(0, 9),
    columns=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    chunk=st.sampled_from([8, 64, packing.CHUNK]),
)
def test_codes_survive_packing(bits: int, rows: int, columns: int, seed: int, chunk: int) -> None:
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        packed = pack_bits(codes, bits)
        assert packed.dtype == torch.uint8
        assert packed.shape == (math.ceil(rows * columns * bits / 8),)
        assert torch.equal(unpack_bits(packed, bits, codes.shape), codes)


def test_the_stream_of_bits_is_as_documented() -> None:
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    stream = sum(code << (3 * index) for index, code in enumerate([1, 2, 3, 4, 5, 6]))
    assert pack_bits(codes, 3).tolist() == [stream & 255, stream >> 8 & 255, stream >> 16]
    assert torch.equal(pack_bits(codes.t(), 3), pack_bits(codes.t().contiguous(), 3))


def test_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="code 8 does not fit in 3 bits"):
        pack_bits(torch.tensor([1, 8], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="16 codes of 4 bits are not"):
        unpack_bits(torch.zeros(7, dtype=torch.uint8), 4, (4, 4))
