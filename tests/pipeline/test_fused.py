"""Layers that engines compute as one have one global scale, where a recipe asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from exported import wide_llama
from quantbench.core import tensors
from quantbench.core.errors import ConfigError
from quantbench.export.layouts.compressed_tensors import CompressedTensors
from quantbench.export.subject import Subject
from quantbench.formats.activation import FormatActivation
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.fused import fused_layers
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import VOCABULARY, tiny_handle, tiny_tokenizer

FUSED = "quantizer.weight.fused=true"
BLOCK = "model.layers.0."


def quantized(handle: ModelHandle, *recipe: str) -> Artifact:
    chosen = make_recipe(*recipe)
    tokens = torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))
    data = None if chosen.data_free else tokens
    return quantize_model(handle, chosen, data, torch.device("cpu"), lambda _done, _all: None).artifact


def scales(weights: Mapping[str, QuantizedWeight], *names: str) -> set[float]:
    found: set[float] = set()
    for name in names:
        scale = weights[BLOCK + name].params.global_scale
        assert isinstance(scale, Tensor)
        found |= set(scale.flatten().tolist())
    return found


Q_K_V = tuple(f"self_attn.{one}_proj" for one in "qkv")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


@pytest.mark.parametrize(
    "recipe", [("nvfp4",), ("gptq", "format@quantizer.weight=nvfp4"), ("awq", "format@quantizer.weight=nvfp4")]
)
def test_fused_layers_have_the_scale_of_the_largest_weight_among_them(recipe: tuple[str, ...]) -> None:
    apart, fused = (quantized(tiny_handle(), *recipe, *more).weights for more in ((), (FUSED,)))
    for names in (Q_K_V, GATE_UP):
        assert len(scales(apart, *names)) == len(names)
        assert len(scales(fused, *names)) == 1
        if recipe == ("nvfp4",):  # nothing changes the weights before, nor those behind
            assert scales(fused, *names) == {max(scales(apart, *names))}
    assert not scales(fused, "self_attn.o_proj", "mlp.down_proj") & scales(fused, *Q_K_V, *GATE_UP)


def test_a_fused_run_is_stored_as_it_is_and_its_export_has_nothing_to_warn_of(tmp_path: Path) -> None:
    handle = tiny_handle(wide_llama())
    made = quantized(handle, "nvfp4", FUSED)
    stored, spec = made.to_tensors()
    tensors.save(tmp_path / "weights.safetensors", stored)
    again = Artifact.from_tensors(tensors.load(tmp_path / "weights.safetensors"), spec)
    assert again.fingerprint() == made.fingerprint()
    made.install(handle)
    notes = {}
    for name, artifact in (("fused", made), ("apart", quantized(tiny_handle(wide_llama()), "nvfp4"))):
        folder = tmp_path / name
        folder.mkdir()
        subject = Subject(name, artifact, wide_llama(), tiny_tokenizer(), torch.float32)
        notes[name] = " ".join(CompressedTensors().write(subject, folder).notes)
    assert "groups of layers that engines fuse" not in notes["fused"]
    assert "NVFP4: 4 groups of layers that engines fuse" in notes["apart"]
    assert "quantizer.weight.fused=true" in notes["apart"]


def test_sets_are_those_of_one_module_and_of_what_is_quantized() -> None:
    names = ["a.0.k_proj", "a.0.q_proj", "a.1.q_proj", "a.1.v_proj", "b.up_proj", "c.gate_proj", "c.up_proj", "x"]
    assert fused_layers(names) == [
        ["a.0.q_proj", "a.0.k_proj"],
        ["a.1.q_proj", "a.1.v_proj"],
        ["c.gate_proj", "c.up_proj"],
    ]


def test_it_is_an_option_of_weights() -> None:
    with pytest.raises(ConfigError, match=r"format\.fused and format\.largest are for weights"):
        FormatActivation(format=Nvfp4Format(fused=True), dynamic=True)
    weight = torch.tensor([[3.0, -1.0, 0.5, 0.0]])
    given = Nvfp4Format(group_size=4, largest=12.0).params(weight).global_scale
    assert given is not None
    assert given.tolist() == [[pytest.approx(12 / (6 * 448))]]
