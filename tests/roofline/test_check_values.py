"""The numbers of the paper's code, with its defects and without them."""

from __future__ import annotations

import pytest

from llm_viewer import MODEL, as_released, head_as_released, machine, milliseconds, phase, precision
from quantbench.roofline.cost import Cost
from quantbench.roofline.load import Load
from quantbench.roofline.precision import Precision

S = 2048


@pytest.mark.parametrize(
    ("hardware", "bits", "expected"),
    [
        ("a6000", (16, 16, 16), 18.637),
        ("a6000", (8, 16, 16), 10.034),
        ("a6000", (4, 16, 16), 5.732),
        ("a6000", (8, 8, 8), 9.318),
        ("a6000", (4, 8, 4), 4.667),
        ("a100", (16, 16, 16), 7.020),
        ("a100", (4, 16, 16), 2.159),
        ("a100", (8, 8, 8), 3.510),
        ("h100", (16, 16, 16), 4.659),
        ("h100", (4, 16, 16), 1.433),
        ("h100", (8, 8, 8), 2.330),
    ],
)
def test_decode_is_that_of_the_released_code_with_its_defects(
    hardware: str, bits: tuple[int, int, int], expected: float
) -> None:
    decode = phase(MODEL, precision(*bits), 1, S)
    assert milliseconds(decode, machine(hardware), defects=True) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("hardware", "bits", "expected"),
    [
        ("a6000", (16, 16, 16), 226.9),
        ("a6000", (8, 8, 8), 113.4),
        ("a100", (16, 16, 16), 105.9),
        ("a100", (8, 8, 8), 53.0),
        ("h100", (16, 16, 16), 40.7),
        ("h100", (8, 8, 8), 20.3),
    ],
)
def test_prefill_is_that_of_the_released_code_with_its_defects(
    hardware: str, bits: tuple[int, int, int], expected: float
) -> None:
    prefill = phase(MODEL, precision(*bits), S, S)
    assert milliseconds(prefill, machine(hardware), defects=True) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_head_has_two_operations_a_weight_and_the_activations_of_the_whole_batch(batch: int) -> None:
    decode = phase(MODEL, precision(16, 16, 16), 1, S, batch)
    head, released = decode.head(), head_as_released(decode)
    assert head.flops - released.flops == 4096 * 32000 * batch
    assert head.flops == 2 * 4096 * 32000 * batch
    assert head.activation_bytes - released.activation_bytes == (batch - 1) * (4096 + 32000) * 2


def test_without_the_defects_the_difference_is_what_they_leave_out() -> None:
    own = phase(MODEL, precision(16, 16, 16), 1, S, 4)
    operators, released = list(own.operators()), list(as_released(own))
    flops = sum(one.flops for one in operators) - sum(one.flops for one in released)
    moved = sum(one.bytes for one in operators) - sum(one.bytes for one in released)
    missing = 11008 - 4096  # channels of a gated activation: 2 operations, 3 movements of each
    assert flops == pytest.approx(4 * (4096 * 32000 + 32 * 2 * missing + 7 * 4096))
    assert moved == pytest.approx(2 * (3 * (4096 + 32000) + 4 * (32 * 3 * missing + 2 * 4096)))


def test_facts_of_the_model_and_the_machine() -> None:
    own = phase(MODEL, precision(16, 16, 16), 1, S)
    assert MODEL.parameters == 6_738_415_616
    assert MODEL.cached_per_token * 2 == 524_288  # bytes in 16 bits
    in_blocks = sum(linear.size for block, linear in MODEL.linears() if block is not None)
    assert 2 * in_blocks == pytest.approx(12.952e9, rel=1e-4)
    assert sum(one.bytes for one in as_released(own)) == pytest.approx(14.31e9, rel=1e-3)
    assert machine("a6000").ridge() == pytest.approx(201.6, abs=0.05)
    assert machine("h100").ridge() == pytest.approx(322, abs=0.5)
    intensities = {one.name: one.intensity for one in phase(MODEL, precision(16, 16, 16), S, S).operators()}
    assert intensities["q_proj"] == pytest.approx(1024, abs=1)
    assert intensities["down_proj"] == pytest.approx(1215, abs=1)
    assert intensities["qk"] == pytest.approx(113.8, abs=0.1) == intensities["sv"]


def test_decode_in_four_bits_on_an_a100_is_near_the_published_time_before_scales_are_counted() -> None:
    cost = Cost(MODEL, Precision(weight=4), Load(context=S), machine("a100"))
    assert cost.decode_ms == pytest.approx(2.16, rel=0.1)
    assert Cost(MODEL, Precision(weight=4.15), Load(context=S), machine("a100")).decode_ms > cost.decode_ms
