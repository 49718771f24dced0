from __future__ import annotations

import torch

from quantbench.core.input_stats import LinearStats
from quantbench.pipeline.collect import StatsAccumulator
from quantbench.pipeline.sample import RowSample


def sampled(count: int, size: int, step: int) -> list[int]:
    """The sample of the rows 0, 1, .. count - 1, given `step` at a time."""
    sample = RowSample(size)
    for first in range(0, count, step):
        sample.add(torch.arange(first, min(first + step, count))[:, None].float(), first)
    assert sample.rows is not None
    return [int(i) for i in sample.rows[:, 0]]


def test_the_sample_does_not_depend_on_how_the_rows_arrive() -> None:
    whole = sampled(1000, 64, 1000)
    assert len(set(whole)) == 64
    for step in (1, 7, 64, 100):
        assert sampled(1000, 64, step) == whole


def test_few_rows_are_all_kept() -> None:
    assert sorted(sampled(50, 64, 8)) == list(range(50))


def test_it_is_spread_over_the_sequences_and_over_the_positions_in_them() -> None:
    chosen = torch.tensor(sampled(64 * 512, 2048, 512))
    per_sequence = (chosen // 512).bincount(minlength=64)
    per_position = (chosen % 512 // 32).bincount(minlength=16)
    assert int((per_sequence - 32).abs().max()) <= 4
    assert int((per_position - 128).abs().max()) <= 16


def test_the_statistic_follows_a_change_of_the_inputs() -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    accumulator = StatsAccumulator(4, frozenset({"rows"}))
    for part in x:
        accumulator.add(part)
    stats = accumulator.stats()
    rows = stats.require("rows")
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, x.reshape(-1, 4).tolist()))
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(stats.rescaled(scale).rows, rows / scale)
    assert torch.equal(stats.select(torch.tensor([3, 1])).require("rows"), rows[:, [3, 1]])
    assert LinearStats(n_tokens=1).rescaled(scale).rows is None
