"""Tensors: fingerprints see content only, files are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantbench.core import tensors
from quantbench.core.errors import StoreError
from quantbench.core.tensors import fingerprint


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


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    one = torch.arange(6.0)
    tensors.save(tmp_path / "t.safetensors", {"a": one, "b": one, "part": one[2:4]})
    loaded = tensors.load(tmp_path / "t.safetensors")
    assert {name: value.tolist() for name, value in loaded.items()} == {
        "a": one.tolist(),
        "b": one.tolist(),
        "part": [2.0, 3.0],
    }
