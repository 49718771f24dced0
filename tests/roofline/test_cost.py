"""Time and memory: small cases by hand, bounds, and what batches, windows, experts, latents and chips do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_viewer import LLAMA2_7B, MODEL, machine
from quantbench.core.errors import ConfigError
from quantbench.roofline.cost import Cost, seconds
from quantbench.roofline.hardware import Hardware, hardware
from quantbench.roofline.load import Load
from quantbench.roofline.operators import Operator, Phase, visible_pairs
from quantbench.roofline.precision import Precision
from quantbench.roofline.reading import shape
from quantbench.roofline.shape import Mlp, Shape

A100 = replace(machine("a100"), interconnect=300e9)
MIXTURE = {**LLAMA2_7B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
LATENT = {
    **LLAMA2_7B,
    "model_type": "deepseek_v3",
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def operators(
    model: Shape, n: int, length: int, precision: Precision | None = None, **load: Any
) -> dict[str, Operator]:
    """The operators of the first block, and those outside, by name."""
    phase = Phase(model=model, precision=precision or Precision(), load=Load(**load), n=n, length=length)
    return {one.name: one for one in phase.operators() if one.block in {0, None}}


@pytest.mark.parametrize("n", [1, 5, 16])
@pytest.mark.parametrize("length", [16, 40])
@pytest.mark.parametrize("window", [None, 1, 7, 16, 100])
def test_pairs_are_those_that_a_causal_mask_with_a_window_leaves(n: int, length: int, window: int | None) -> None:
    seen = sum(
        1 for query in range(length - n, length) for key in range(query + 1) if window is None or key > query - window
    )
    assert visible_pairs(n, length, window) == seen


def test_an_operator_takes_what_its_bound_lets_it_take() -> None:
    chip = Hardware(name="chip", bandwidth=10.0, rates={"fp16": 100.0, "int8": 200.0}, memory=1.0, source="here")
    assert chip.ridge() == 10.0
    assert seconds(Operator(name="o", block=0, flops=50, weight_bytes=20), chip) == (2.0, "memory")
    assert seconds(Operator(name="o", block=0, flops=500, weight_bytes=20), chip) == (5.0, "compute")
    assert seconds(Operator(name="o", block=0, flops=500, weight_bytes=20, arithmetic="int8"), chip) == (2.5, "compute")
    assert seconds(Operator(name="o", block=0, flops=500, weight_bytes=20, arithmetic="fp4"), chip)[0] == 5.0


def test_bits_of_weights_change_decode_and_hardly_prefill() -> None:
    full, four = (Cost(MODEL, Precision(weight=bits), Load(), A100) for bits in (16, 4))
    assert four.decode_ms < 0.35 * full.decode_ms
    assert four.prefill_ms == pytest.approx(full.prefill_ms, rel=0.01)
    assert {one.bound for one in full.decode} == {"memory"}
    assert {one.name: one.bound for one in full.prefill}["down_proj"] == "compute"


def test_eight_bit_arithmetic_halves_matrices_of_a_prefill_where_the_machine_has_it() -> None:
    eight = Precision(weight=8, inputs=8, arithmetic="int8")
    times = {
        name: {one.name: one.seconds for one in Cost(MODEL, precision, Load(), chip).prefill}["gate_proj"]
        for name, precision, chip in (
            ("full", Precision(), A100),
            ("int8", eight, A100),
            ("without", eight, replace(A100, rates={"fp16": 312e12})),
        )
    }
    assert times["int8"] == pytest.approx(times["full"] / 2)
    assert times["without"] == pytest.approx(times["full"])


def test_fused_attention_moves_no_scores_and_skips_what_the_mask_hides() -> None:
    fused, eager = (operators(MODEL, 2048, 2048, attention=kind) for kind in ("fused", "eager"))
    scores = 32 * 2048 * 2048
    assert eager["qk"].flops + eager["sv"].flops == 2 * scores * 2 * 128
    assert fused["attention"].flops == pytest.approx((2 * 2 * 128 + 5) * scores * (2049 / 2048) / 2)
    assert fused["attention"].activation_bytes == 2 * 2048 * 4096 * 2  # queries in, outputs out
    assert eager["softmax"].activation_bytes == 2 * scores * 2


def test_a_decoded_token_reads_the_cache_once_and_few_bits_of_it() -> None:
    cached = operators(MODEL, 1, 1000, attention="fused")["attention"].cache_bytes
    assert cached == 1000 * 2 * 4096 * 2
    four = operators(MODEL, 1, 1000, Precision(kv=4.5, kv_residual=128))["attention"].cache_bytes
    assert four == 2 * 4096 * (128 * 16 + 872 * 4.5) / 8
    windowed = shape({**LLAMA2_7B, "model_type": "mistral", "sliding_window": 100})
    assert operators(windowed, 1, 1000)["attention"].cache_bytes == 100 * 2 * 4096 * 2


def test_experts_that_are_touched_are_expected_ones() -> None:
    mlp = Mlp(hidden=4, width=8, gated=True, experts=8, chosen=2)
    assert mlp.touched(1) == pytest.approx(2)
    assert mlp.touched(2) == pytest.approx(8 * (1 - (6 / 8) ** 2))
    assert mlp.touched(1000) == pytest.approx(8)
    found = operators(shape(MIXTURE), 1, 128, batch=4)
    weights = 4096 * 11008
    assert found["experts.up_proj"].weight_bytes == pytest.approx(2 * weights * mlp.touched(4))
    assert found["experts.up_proj"].flops == 2 * weights * 4 * 2
    assert found["router"].flops == 2 * 4096 * 8 * 4


def test_latents_are_read_once_for_all_heads_when_decoding_and_expanded_when_prefilling() -> None:
    decode, prefill = (operators(shape(LATENT), n, 128) for n in (1, 128))
    assert decode["attention"].cache_bytes == 128 * (512 + 64) * 2
    assert decode["attention"].flops == 32 * 128 * (2 * (512 + 64 + 512) + 5)
    pairs = 128 * 129 / 2
    assert prefill["attention"].flops == pytest.approx(32 * pairs * (2 * (128 + 64 + 128) + 5))
    assert decode["kv_b_proj"].flops == 2 * 512 * 32 * 256


def test_chips_share_matrices_and_send_hidden_states() -> None:
    alone, four = (operators(MODEL, 1, 128, batch=2, tensor_parallel=chips) for chips in (1, 4))
    for name in ("q_proj", "o_proj", "down_proj", "lm_head"):
        assert four[name].weight_bytes == alone[name].weight_bytes / 4
        assert four[name].flops == alone[name].flops / 4
    assert four["attention"].cache_bytes == alone["attention"].cache_bytes / 4
    assert four["norms"] == alone["norms"]
    assert four["all_reduce"].sent_bytes == 2 * 2 * 3 / 4 * 2 * 4096 * 2
    assert "all_reduce" not in alone
    cost = Cost(MODEL, Precision(), Load(tensor_parallel=4), A100)
    assert {one.name: one.bound for one in cost.decode}["all_reduce"] == "interconnect"


def test_key_heads_that_are_fewer_than_chips_are_copied() -> None:
    grouped = shape({**LLAMA2_7B, "num_key_value_heads": 2})
    caches = [Cost(grouped, Precision(), Load(tensor_parallel=chips), A100).cache_bytes(1) for chips in (1, 2, 8)]
    assert caches[1] == caches[0] / 2 == caches[2]


def test_memory_counts_weights_embeddings_cache_and_activations() -> None:
    cost = Cost(MODEL, Precision(), Load(batch=3, context=1000, new_tokens=24), A100)
    assert cost.weight_bytes == 2 * MODEL.parameters
    assert cost.cache_bytes(3) == 3 * 1024 * 524_288
    assert cost.memory_bytes == cost.weight_bytes + cost.cache_bytes(3) + cost.activation_bytes(3)
    four = Cost(MODEL, Precision(weight=4), Load(), A100).weight_bytes
    in_blocks = sum(linear.size for block, linear in MODEL.linears() if block is not None)
    assert cost.weight_bytes - four == in_blocks * 12 / 8


def test_a_tied_head_is_stored_once_unless_it_is_quantized_by_itself() -> None:
    tied = shape({**LLAMA2_7B, "tie_word_embeddings": True})
    apart = Precision(weights={(None, "lm_head"): 8})
    once, twice = (Cost(tied, bits, Load(), A100).weight_bytes for bits in (Precision(), apart))
    assert twice - once == 4096 * 32000


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_largest_batch_fits_and_one_more_does_not(share: float) -> None:
    cost = Cost(MODEL, Precision(), Load(memory_share=share), A100)
    room = share * A100.memory
    takes = [cost.weight_bytes + cost.cache_bytes(b) + cost.activation_bytes(b) for b in (0, 1)]
    assert takes[0] < room
    batch = cost.largest_batch
    assert cost.weight_bytes + cost.cache_bytes(batch) + cost.activation_bytes(batch) <= room
    assert cost.weight_bytes + cost.cache_bytes(batch + 1) + cost.activation_bytes(batch + 1) > room
    assert Cost(MODEL, Precision(), Load(), replace(A100, memory=10e9)).largest_batch == 0


def test_an_answer_is_a_prefill_and_a_decode_for_each_new_token() -> None:
    cost = Cost(MODEL, Precision(), Load(context=100, new_tokens=2), A100)
    steps = [Cost(MODEL, Precision(), Load(context=length), A100).decode_ms for length in (101, 102)]
    assert cost.answer_ms == pytest.approx(cost.prefill_ms + sum(steps))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"batch": 0}, "batch=0: expected a whole number of at least 1"),
        ({"context": -5}, "context=-5"),
        ({"attention": "flash"}, "attention=flash: must be one of fused, eager"),
        ({"memory_share": 1.5}, "memory_share=1.5: expected a share"),
        ({"context": 4097}, "context=4097: model llama2_7b takes 4096 positions at most"),
        ({"context": 4000, "new_tokens": 100}, "context=4000 and new_tokens=100: model llama2_7b takes 4096"),
        ({"tensor_parallel": 3}, "tensor_parallel=3: the 32 heads of model llama2_7b cannot be shared out; 2, 4, 8"),
    ],
)
def test_a_load_that_cannot_be_is_refused(load: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cost(MODEL, Precision(), Load(**load), A100)


def test_several_chips_need_an_interconnect() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel=2: hardware a6000 has no interconnect_gb_s"):
        Cost(MODEL, Precision(), Load(tensor_parallel=2), machine("a6000"))


ENTRY = {"bandwidth_gb_s": 100, "tflops": {"fp16": 1}, "memory_gb": 8, "source": "mine"}


def test_hardware_is_read_in_bytes_and_operations_a_second() -> None:
    found = hardware("mine", {**ENTRY, "interconnect_gb_s": 4})
    assert (found.bandwidth, found.rates, found.memory, found.interconnect) == (100e9, {"fp16": 1e12}, 8e9, 4e9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bandwidth_gb_s": None}, "hardware mine: bandwidth_gb_s is missing; an entry has bandwidth_gb_s, tflops"),
        ({"bandwidth_gb_s": 0}, "hardware mine.bandwidth_gb_s=0: expected a number above 0"),
        ({"bandwidth_gb_s": "2e3"}, "hardware mine.bandwidth_gb_s='2e3': expected a number"),
        ({"tflops": 300}, "hardware mine.tflops=300: expected a mapping with fp16"),
        ({"tflops": {"int8": 300}}, "expected a mapping with fp16"),
        ({"tflops": {"fp16": 300, "fp32": 10}}, r"hardware mine\.tflops\.fp32: no such option"),
        ({"bandwith_gb_s": 1}, "bandwith_gb_s: no such option.*bandwidth_gb_s"),
    ],
)
def test_an_entry_of_hardware_that_is_wrong_is_refused_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hardware("mine", {**ENTRY, **changes})
