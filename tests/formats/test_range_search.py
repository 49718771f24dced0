"""The quick search finds what trying every range finds, bit for bit: by the compiled kernel, and by torch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.formats import range_search
from quantbench.formats.grid import Convention, IntGrid, containing_zero
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.range_kernel import ranges_left
from quantbench.formats.range_search import every_range, smallest_error

SHRINKS = [1 - i / 100 for i in range(80)]
AROUND_ONE = [1.0, *(1 + i / 50 for i in range(1, 6)), *(1 - i / 50 for i in range(1, 6))]
CONVENTIONS: list[Convention | None] = [None, "full_range", "narrow_range"]


def on_a_grid(shape: tuple[int, ...]) -> Tensor:
    """Values that were quantized before: with their own range there is no error at all."""
    return (random(*shape, seed=3).clamp(-2, 2) * 4).round() / 8


VALUES: dict[str, Any] = {
    "normal": lambda *shape: random(*shape, seed=0) / 24,
    "heavy tails": lambda *shape: random(*shape, seed=1).pow(5),
    "one side": lambda *shape: random(*shape, seed=2).abs() + 3,
    "on a grid": lambda *shape: on_a_grid(shape),
    "two values": lambda *shape: random(*shape, seed=4).sign(),
    "constant": lambda *shape: torch.full(shape, 0.3),
    "zeros": lambda *shape: torch.zeros(shape),
    "smaller than scales": lambda *shape: random(*shape, seed=5) * 1e-7,
    "without powers": lambda *shape: random(*shape, seed=6) * 1e-20,
    "large": lambda *shape: random(*shape, seed=7) * 3e5,
    "mostly zeros": lambda *shape: random(*shape, seed=8) * (random(*shape, seed=9) > 1.5),
}


def found_by(search: Any, grid: IntGrid, values: Tensor, factors: list[float], importance: Tensor | None) -> GridParams:
    bounds = containing_zero(*values.aminmax(dim=-1, keepdim=True))
    found: GridParams = search(grid, values, bounds, factors, importance)
    return found


def by_torch(*given: Any) -> GridParams:
    """Without the kernel."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(range_search, "ranges_left", lambda *_given: None)
        return smallest_error(*given)


def assert_same(one: GridParams, other: GridParams) -> None:
    assert torch.equal(one.scale, other.scale)
    assert (one.zero is None) == (other.zero is None)
    assert one.zero is None or other.zero is None or torch.equal(one.zero, other.zero)


@pytest.mark.parametrize(
    ("kind", "bits", "convention"),
    # Each kind of values in 2, 3 and 8 bits, each time by another convention.
    [
        (kind, bits, CONVENTIONS[(i + j) % 3])
        for (i, kind), (j, bits) in itertools.product(enumerate(VALUES), enumerate([2, 3, 8]))
    ],
)
def test_it_finds_what_trying_every_range_finds(kind: str, bits: int, convention: Convention | None) -> None:
    for dtype, shape in (
        ("float16", (40, 3, 32)),
        ("bfloat16", (9, 1, 130)),
        ("float32", (1, 1, 700)),
        ("float16", (7, 5)),
    ):
        grid = IntGrid(bits, convention, dtype)  # type: ignore[arg-type]
        values = VALUES[kind](*shape)
        weights = random(*shape[1:], seed=10).pow(4) * (random(*shape[1:], seed=11) > -1)  # some count nothing
        for importance in (None, weights):
            for factors in (SHRINKS, AROUND_ONE):
                searches = (smallest_error, every_range, by_torch)
                found = [found_by(search, grid, values, factors, importance) for search in searches]
                assert_same(*found[:2])
                assert_same(*found[1:])


def test_many_groups_are_looked_at_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_search, "chunk_elements", lambda _device: 500)
    grid, values = IntGrid(3, None, "float16"), random(50, 4, 16, seed=12)
    assert_same(*(found_by(search, grid, values, SHRINKS, None) for search in (smallest_error, every_range)))


def test_ranges_whose_scale_overflows_are_left_out_and_the_first_of_equals_is_taken() -> None:
    grid = IntGrid(4, None, "float16")
    values = torch.tensor([[[-6e5, 0.0, 6e5, 2e5]]])  # a whole range of 1.2e6 / 15 = 8e4 is beyond 65504
    both = [found_by(search, grid, values, SHRINKS, None) for search in (smallest_error, every_range)]
    assert_same(*both)
    assert bool(both[0].scale.isfinite().all())
    zeros = found_by(smallest_error, grid, torch.zeros(1, 1, 8), SHRINKS, None)
    assert torch.equal(zeros.scale[0], grid.fit(torch.tensor([[-1.0]]), torch.tensor([[1.0]])).scale)


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
@pytest.mark.parametrize(("bits", "most"), [(4, 4.0), (3, 8.0)])
def test_few_ranges_take_the_power_of_every_error(
    kind: str, bits: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 ranges; `every_range` takes all powers."""
    error, taken = range_search._error, [0]

    def counted(grid: IntGrid, values: Tensor, *rest: Any) -> Tensor:
        taken[0] += values.numel()
        return error(grid, values, *rest)

    monkeypatch.setattr(range_search, "_error", counted)
    values = VALUES[kind](64, 4, 64)
    found_by(by_torch, IntGrid(bits, None, "float16"), values, SHRINKS, None)
    assert values.numel() <= taken[0] <= most * values.numel()


def test_the_kernel_leaves_few_groups_to_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, values = IntGrid(4, None, "float16"), VALUES["normal"](256, 64)
    bounds = containing_zero(*values.aminmax(dim=-1, keepdim=True))
    found = ranges_left(grid, values, bounds, torch.tensor(SHRINKS), None)
    assert found is not None
    only, left = found
    assert float((only < 0).float().mean()) < 0.02
    assert torch.equal(left.sum(1) == 1, only >= 0)
    assert torch.equal(left.byte().argmax(1)[only >= 0], only[only >= 0])


@pytest.mark.parametrize("group_size", [8, "channel", "tensor"])
@pytest.mark.parametrize("block_rows", [1, 3])
def test_weights_of_columns_count_in_every_block(group_size: Any, block_rows: int) -> None:
    if group_size == "tensor" and block_rows > 1:
        return
    grid = IntFormat(bits=2, group_size=group_size, block_rows=block_rows, symmetric=False, range="mse")
    weight, importance = random(7, 20, seed=13).pow(3), random(20, seed=14).pow(4)

    def error(params: GridParams) -> Tensor:
        index = torch.zeros(20, dtype=torch.int64) if params.scale.shape[1] == 1 else torch.arange(20) // 8
        per_column = params.columns(index)
        return ((grid.decode(grid.encode(weight, per_column), per_column) - weight).abs() ** 2.4 * importance).sum()

    assert error(grid.params(weight, importance)) < error(grid.params(weight))
    plain, alike = grid.params(weight), grid.params(weight, torch.full((20,), 4.0))
    assert torch.equal(plain.scale, alike.scale)
