"""Errors of many comparisons at once are those of each alone."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.metrics.draw_arrays import crossed_errors, gap_errors
from quantbench.metrics.draws import crossed_error, gap_error
from quantbench.metrics.error_arrays import Errors
from quantbench.metrics.errors import Error, Source


def single(errors: Errors, index: int) -> Error:
    pairs = zip(errors.stderrs[index], errors.dfs[index], strict=True)
    return Error(tuple(Source(float(stderr), float(df)) for stderr, df in pairs))


@pytest.mark.parametrize("dfs", [(1.0, 7.0), (2.0, 11.0), (4.0, 29.0), (2.6, 199.0)])
@pytest.mark.parametrize("n", [20, 130])  # solved one by one; interpolated
def test_many_errors_are_what_each_is_alone(dfs: tuple[float, float], n: int) -> None:
    rng = np.random.default_rng(n)
    stderrs = 10 ** rng.uniform(-6, 3, (n, 2))
    errors = Errors(stderrs, np.broadcast_to(np.array(dfs), (n, 2)))
    values = errors.stderr * rng.normal(0, 3, n)
    margins = errors.stderr * rng.uniform(0.5, 5, n)
    rows = range(0, n, n // 10)
    near = 1e-3 if dfs[0] == 1 else 1e-5  # the tails of one degree of freedom are integrated to three digits
    several = errors.p_values(values), errors.half_widths(), errors.detectable(), errors.equivalence_p(values, margins)
    for row in rows:
        one = single(errors, row)
        assert errors.stderr[row] == pytest.approx(one.stderr)
        assert several[0][row] == pytest.approx(one.p_value(values[row]), rel=near)
        assert several[1][row] == pytest.approx(one.quantile(0.975), rel=near)
        assert several[2][row] == pytest.approx(one.detectable(), rel=near)
        assert several[3][row] == pytest.approx(one.equivalence_p(values[row], margins[row]), rel=near)


def test_one_source_no_error_and_an_unknown_one() -> None:
    errors = Errors(np.array([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0], [np.nan, 1.0]]), np.full((4, 2), 9.0))
    values = np.array([3.0, 0.0, 1e-9, 1.0])
    assert errors.p_values(values)[:3] == pytest.approx([Error.of(2.0, 9).p_value(3.0), 1, 0])
    assert errors.half_widths()[:3] == pytest.approx([Error.of(2.0, 9).quantile(0.975), 0, 0])
    assert np.isnan(errors.p_values(values)[3])
    assert np.isnan(errors.half_widths()[3])
    assert np.isnan(errors.equivalence_p(values, np.array([np.nan, 1, 1, 1]))[0])


@pytest.mark.parametrize(("n_draws", "n_clusters"), [(2, 3), (3, 12), (5, 30)])
def test_tables_of_several_metrics_have_the_errors_of_each(n_draws: int, n_clusters: int) -> None:
    rng = np.random.default_rng(n_draws)
    y_a, y_b = rng.normal(size=(2, 4, n_draws, n_clusters)) + rng.normal(size=(2, 4, n_draws, 1))
    y_b = y_b[:, : n_draws - 1] if n_draws > 2 else y_b
    crossed, gap = crossed_errors(y_a), gap_errors(y_a, y_b)
    for row in range(4):
        alone = crossed_error(y_a[row])
        assert single(crossed, row).stderr == pytest.approx(alone.stderr)
        assert single(crossed, row).p_value(1.0) == pytest.approx(alone.p_value(1.0))
        alone = gap_error(y_a[row], y_b[row])
        assert single(gap, row).stderr == pytest.approx(alone.stderr)
        assert single(gap, row).p_value(1.0) == pytest.approx(alone.p_value(1.0))


def test_one_draw_has_the_error_of_its_clusters_and_one_cluster_none() -> None:
    y = np.random.default_rng(0).normal(size=(2, 1, 9))
    expected = y[:, 0].std(axis=1, ddof=1) / 3
    assert crossed_errors(y).stderr == pytest.approx(expected)
    assert crossed_errors(y).dfs[0].tolist() == [1, 8]
    assert gap_errors(y, np.zeros((2, 1, 9))).stderr == pytest.approx(expected)
    assert np.isnan(crossed_errors(y[:, :, :1]).stderr).all()
    assert np.isnan(gap_errors(y[:, :, :1], y[:, :, :1]).stderr).all()
