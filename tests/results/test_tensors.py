"""Tensors: packing is exact, fingerprints see content only, files are checked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.errors import StoreError
from quantbench.results import tensors
from quantbench.results.tensors import fingerprint, pack_bits, unpack_bits


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(1, 8),
    rows=st.integers(0, 9),
    columns=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    chunk=st.sampled_from([8, 64, tensors.CHUNK]),
)
def test_codes_survive_packing(bits: int, rows: int, columns: int, seed: int, chunk: int) -> None:
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "CHUNK", chunk)
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


def test_a_fingerprint_sees_content_and_nothing_else() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    plain = fingerprint({"a": weight, "b": torch.ones(1)})
    assert plain == fingerprint({"b": torch.ones(1), "a": weight.t().contiguous().t()})
    changed = [
        {"a": weight, "c": torch.ones(1)},
        {"a": weight.reshape(3, 2), "b": torch.ones(1)},
        {"a": weight, "b": torch.ones(1, dtype=torch.int32)},
        {"a": weight.half(), "b": torch.ones(1)},
        {"a": weight + torch.eye(2, 3) * 1e-7, "b": torch.ones(1)},
        {"a": weight},
    ]
    prints = {plain, *map(fingerprint, changed)}
    assert len(prints) == 1 + len(changed)
    assert (
        len(fingerprint({"empty": torch.empty(0, 3), "scalar": torch.tensor(1.0), "b": torch.ones(1).bfloat16()})) == 64
    )


def test_tensors_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    stored = {"codes": torch.arange(12, dtype=torch.uint8).reshape(3, 4).t(), "scale": torch.rand(3).bfloat16()}
    tensors.save(path, stored, {"format": "pt"})
    loaded = tensors.load(path)
    assert fingerprint(loaded) == fingerprint(stored)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_damaged_tensor_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(StoreError, match=r"cannot read .*weights\.safetensors"):
        tensors.load(path)
    tensors.save(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"cannot read .*weights\.safetensors.*delete the folder"):
        tensors.load(path)
    with pytest.raises(StoreError, match=r"cannot write .*gone/weights\.safetensors"):
        tensors.save(tmp_path / "gone" / "weights.safetensors", {"a": torch.zeros(1)})
