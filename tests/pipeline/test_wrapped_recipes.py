"""Recipes whose weights are stored in another basis, with another format or with corrections, in the whole pipeline."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantbench.formats.corrections import KeptColumns, LowRank
from quantbench.formats.incoherent import Incoherent
from quantbench.formats.mixed import MixedIntFormat
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import VOCABULARY, tiny_handle

GROUPS = "quantizer.weight.group_size=8"
FASTER = "quantizer.rounding.tau_steps=4"
SLIM = ["slim_llm", GROUPS, FASTER]


def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))


def quantized(name: str, *overrides: str) -> tuple[Artifact, Tensor]:
    """The artifact, and the logits of the model that a reload of it gives."""
    handle, recipe = tiny_handle(), make_recipe(name, *overrides)
    data = None if recipe.data_free else tokens()
    artifact = quantize_model(handle, recipe, data, torch.device("cpu"), lambda _done, _all: None).artifact
    Artifact.from_tensors(*artifact.to_tensors()).install(handle)
    with torch.no_grad():
        logits: Tensor = handle.model(input_ids=tokens()).logits
    return artifact, logits


@pytest.mark.parametrize("recipe", [["quip", "quantizer.weight.group_size=tensor"], SLIM], ids=["quip", "slim_llm"])
def test_error_falls_with_bits(recipe: list[str]) -> None:
    _, full = quantized("none")
    errors = [float((quantized(*recipe, f"quantizer.weight.bits={bits}")[1] - full).norm()) for bits in (6, 4, 2)]
    assert errors == sorted(errors)


def test_low_rank_compensation_lowers_the_error_of_the_weights_it_stands_on() -> None:
    plain, _ = quantized("zeroquant_lorc", "quantizer.rounding.rank=0", GROUPS)
    better, _ = quantized("zeroquant_lorc", GROUPS)
    model = tiny_handle().model
    for name, weight in better.weights.items():
        original = model.get_parameter(f"{name}.weight")
        left = (weight.dequantize() - original).norm()
        assert float(left) < 0.9 * float((plain.weights[name].dequantize() - original).norm())
        assert [type(correction) for correction in weight.corrections] == [LowRank]


def test_the_seed_of_the_basis_is_an_axis() -> None:
    fingerprints = {quantized("quip", f"quantizer.rounding.seed={seed}")[0].fingerprint() for seed in (0, 0, 1)}
    assert len(fingerprints) == 2


@pytest.mark.parametrize("recipe", [["quip"], SLIM, ["zeroquant_lorc", GROUPS]], ids=["quip", "slim_llm", "lorc"])
def test_kept_columns_head_and_sequential_calibration_go_with_it(recipe: list[str]) -> None:
    sequential = [] if make_recipe(*recipe).data_free else ["quantizer.true_sequential=true"]
    artifact, logits = quantized(
        *recipe, "quantizer.policy.outlier_columns=2", "quantizer.policy.lm_head=true", *sequential
    )
    assert bool(logits.isfinite().all())
    weight = artifact.weights["model.layers.0.mlp.up_proj"]
    assert type(weight.corrections[-1]) is KeptColumns
    assert weight.dequantize().shape == (48, 32)
    assert "lm_head" in artifact.weights


def test_what_is_stored_is_what_the_rounding_made() -> None:
    slim, _ = quantized(*SLIM)
    formats = [weight.format for weight in slim.weights.values()]
    assert all(isinstance(f, MixedIntFormat) and sum(f.group_bits) == 2 * len(f.group_bits) for f in formats)
    assert len({f.group_bits for f in formats if isinstance(f, MixedIntFormat)}) > 1
    quip, _ = quantized("quip")
    assert all(type(weight.corrections[-1]) is Incoherent for weight in quip.weights.values())
