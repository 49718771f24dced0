"""Records as precisions: true bits by matrix, arithmetic by format, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest

from quantbench.core.errors import ConfigError
from quantbench.report.modelled.precision import common_arithmetic, precision_of
from quantbench.roofline.cost import weight_bytes
from quantbench.roofline.reading import shape
from quantbench.roofline.shape import Shape
from quantbench.store.records import LayerRecord
from stored_sweep import record

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
MODEL = shape(CONFIG, "tiny")
INT4 = {"_target_": "quantbench.formats.int.IntFormat", "bits": 4, "group_size": 16}
INT8_TOKEN = {"_target_": "quantbench.formats.int.IntActivation", "bits": 8}


def layers(bits: float, *, names: tuple[str, ...] = (), **own: float) -> list[LayerRecord]:
    """A record for every matrix of the blocks, or for those named; own: bits by role."""
    every = [
        f"model.layers.{block}.{'self_attn' if linear.role[0] in 'qkvo' else 'mlp'}.{linear.role}"
        for block, linear in MODEL.linears()
        if block is not None
    ]
    return [
        LayerRecord(name=name, loss=None, seconds=0.0, bits_per_weight=own.get(name.rpartition(".")[2], bits))
        for name in names or every
    ]


def made(weight: dict[str, Any] | None = INT4, given: list[LayerRecord] | None = None, **fields: Any) -> Any:
    """A record of a run with a weight format and, under `recipe`, other parts."""
    recipe = {"weight": weight, **fields.pop("recipe", {})}
    known = {
        "config": {"quantizer": recipe},
        "layers": layers(4.25) if given is None else given,
        "effective_bits": 4.25,
    }
    return record("run", **(known | fields))


def test_each_matrix_has_the_bits_of_its_layer_and_what_is_not_quantized_sixteen() -> None:
    found = precision_of(made(given=layers(4.25, down_proj=8.5), effective_bits=None), MODEL)
    assert (found.of(0, "q_proj"), found.of(1, "down_proj")) == (4.25, 8.5)
    assert (found.of(None, "lm_head"), found.of(None, "embeddings")) == (16, 16)
    assert found.arithmetic == "fp16"


def test_the_mean_of_the_bits_is_that_of_the_record_shifts_counted() -> None:
    found = precision_of(made(effective_bits=4.3), MODEL)
    sizes = {(block, linear.role): linear.size for block, linear in MODEL.linears() if block is not None}
    bits = sum(found.of(*key) * size for key, size in sizes.items())
    assert bits / sum(sizes.values()) == pytest.approx(4.3)
    stored = weight_bytes(MODEL, found)
    kept = (100 * 32 + 5 * 32) * 2  # embeddings, which are the head, and norms in 16 bits
    assert stored == pytest.approx(bits / 8 + kept)


def test_full_precision_is_served_in_sixteen_bits_whatever_it_was_evaluated_in() -> None:
    found = precision_of(made(None, given=[], effective_bits=None, bits_model=32.0), MODEL)
    assert weight_bytes(MODEL, found) == 2 * MODEL.parameters


def test_layers_of_a_fused_matrix_are_several() -> None:
    fused = shape({**CONFIG, "model_type": "phi3", "num_key_value_heads": 4})
    names = ("model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj")
    found = precision_of(made(given=layers(4.25, names=names)), fused)
    assert [found.of(0, role) for role in ("q_proj", "v_proj", "o_proj")] == [4.25, 4.25, 16]
    assert [found.of(1, role) for role in ("gate_proj", "up_proj", "q_proj")] == [4.25, 4.25, 16]


def test_experts_count_as_many_as_are_quantized() -> None:
    mixture = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    names = tuple(f"model.layers.0.mlp.experts.{index}.w1" for index in range(3))
    found = precision_of(made(given=layers(4.25, names=names)), shape({**CONFIG, **mixture}))
    assert found.of(0, "experts.gate_proj") == pytest.approx((3 * 4.25 + 16) / 4)
    assert found.of(1, "experts.gate_proj") == 16


def test_the_cache_has_its_bits_and_its_newest_tokens_sixteen() -> None:
    cache = {"_target_": "quantbench.formats.kv.KVCache", "residual": 128, "sinks": 4}
    found = precision_of(made(recipe={"kv_cache": cache}, kv_bits=3.0), MODEL)
    assert (found.kv, found.kv_residual, found.kv_sinks) == (3.0, 128, 4)
    assert found.cache_bits(1000, 1000) == 132 * 16 + 868 * 3


def format_activation(target: str, **options: Any) -> dict[str, Any]:
    made_of = {"_target_": f"quantbench.formats.{target}", **options}
    return {"_target_": "quantbench.formats.activation.FormatActivation", "format": made_of, "dynamic": True}


FP8 = {"_target_": "quantbench.formats.scaled.ScaledFormat", "element": "e4m3", "group_size": "channel"}
NVFP4 = {"_target_": "quantbench.formats.nvfp4.Nvfp4Format", "group_size": 16}


@pytest.mark.parametrize(
    ("weight", "activation", "arithmetic", "bits"),
    [
        (INT4, None, "fp16", 16),
        (INT4, INT8_TOKEN, "int8", 8),
        (INT4 | {"bits": 8}, INT8_TOKEN, "int8", 8),
        (INT4 | {"bits": 8}, {"_target_": "x.OutlierActivation", "inner": INT8_TOKEN}, "int8", 8),
        (FP8, format_activation("mx.MxFormat", element="e4m3", rule="floor", group_size=32), "fp8", 8.25),
        (NVFP4, format_activation("mx.MxFormat", element="e4m3", rule="floor", group_size=32), "fp8", 8.25),
        (INT4, format_activation("mx.MxFormat", element="e4m3", rule="floor", group_size=32), "fp8", 8.25),
        (
            INT4 | {"bits": 8},
            format_activation("mx.MxFormat", element="e4m3", rule="floor", group_size=32),
            "fp16",
            8.25,
        ),
        (FP8, INT8_TOKEN, "fp16", 8),
        (FP8 | {"element": "nf4"}, INT8_TOKEN, "fp16", 8),
    ],
)
def test_arithmetic_is_what_weights_and_inputs_have_in_common(
    weight: dict[str, Any], activation: dict[str, Any] | None, arithmetic: str, bits: float
) -> None:
    found = precision_of(made(weight, recipe={"activation": activation}), MODEL)
    assert (found.arithmetic, found.inputs) == (arithmetic, bits)


def test_four_bit_floats_meet_in_their_own_arithmetic_with_scales_counted() -> None:
    activation = format_activation("nvfp4.Nvfp4Format", group_size=16)
    found = precision_of(made(NVFP4, recipe={"activation": activation}), MODEL)
    assert found.arithmetic == "fp4"
    assert found.inputs == pytest.approx(4.5 + 32 / 32)  # one more scale a token of 32 features
    assert common_arithmetic("fp8", "fp4", {}) == "fp16"


def test_a_record_of_another_model_is_refused() -> None:
    other: Shape = shape({**CONFIG, "num_hidden_layers": 1}, "other")
    with pytest.raises(
        ConfigError, match="run run is not of a model of the shape of other: it has no q_proj in block 1"
    ):
        precision_of(made(), other)
    with pytest.raises(ConfigError, match=r"its layers have 4\.25 bits a weight by that shape, the record 6"):
        precision_of(made(effective_bits=6.0), MODEL)


def test_an_input_format_whose_bits_are_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"activation mylab\.Odd: in how many bits it stores an input is not known"):
        precision_of(made(recipe={"activation": {"_target_": "mylab.Odd"}}), MODEL)
