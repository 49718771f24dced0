"""variance.csv: which runs are put together, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_up_arms import Lab, text
from quantbench.report.variance import VARIANCE_COLUMNS, variance
from quantbench.report.variance_table import variance_tables, write_variance
from quantbench.store.store import Store


def score(lab: Lab, recipe: str, calib: str | None, draw: int, shift: float, **options: Any) -> None:
    """KL and perplexity on wiki that differ from draw to draw by `shift` and by noise of their own."""
    hard = np.random.default_rng(0).normal(size=48)
    own = 0.001 * np.random.default_rng([draw, len(str(options))]).normal(size=48)
    lab.add(recipe, calib, draw, "wiki", text(1 + shift + 0.02 * hard + own, names=("kl", "nll")), **options)


def rows(lab: Lab, recipe: str, metric: str = "kl") -> pd.DataFrame:
    frame = variance([lab.sweep])
    return frame[(frame.recipe == recipe) & (frame.metric == metric)].set_index("source")


def test_draws_sets_seeds_and_replicates_are_told_apart() -> None:
    lab = Lab()
    for calib, level in (("wiki", 0.0), ("news", 0.3)):
        for draw in range(3):
            score(lab, "gptq", calib, draw, level + 0.05 * draw)
    score(lab, "gptq", "wiki", 0, 0.01, overrides=["replicate=1"], config={"replicate": 1})
    found = rows(lab, "gptq")
    assert list(found.index) == ["items", "replicates", "draws", "calibration sets"]
    assert set(found.n_runs) == {7}
    assert found.sd["draws"] == pytest.approx(0.05, rel=0.05)
    assert found.sd["calibration sets"] == pytest.approx(0.3 / 2**0.5, rel=0.05)
    assert found.sd["replicates"] == pytest.approx(0.01 / 2**0.5, rel=0.1)
    assert (found.df["draws"], found.levels["draws"]) == (4, 6)
    assert (found.sd_low < found.sd)[["draws", "calibration sets"]].all()
    assert found.share.sum() == pytest.approx(1)


def test_seeds_of_a_method_are_a_source_of_their_own() -> None:
    lab = Lab()
    for seed in range(3):
        config = {"quantizer": {"weight": {"bits": 4}, "rotation": {"seed": seed, "residual": True}}}
        overrides = [f"quantizer.rotation.seed={seed}", "quantizer.weight.bits=4"]
        score(lab, "quarot", None, 0, 0.02 * seed, overrides=overrides, config=config)
    found = rows(lab, "quarot")
    assert list(found.index) == ["items", "seeds"]
    assert found.sd["seeds"] == pytest.approx(0.02, rel=0.1)
    assert set(found.settings) == {"weight=bits=4, rotation=residual=true"}


def test_a_perplexity_varies_by_its_logarithm() -> None:
    lab = Lab()
    for draw in range(2):
        score(lab, "gptq", "wiki", draw, 0.1 * draw, names=("perplexity",))
    (found,) = [rows(lab, "gptq", "perplexity")]
    assert found.of_logarithm.all()
    assert found.sd["draws"] == pytest.approx(0.1 / 2**0.5, rel=0.02)


def test_what_is_not_alike_is_not_put_together() -> None:
    lab = Lab()
    score(lab, "none", None, 0, 0.0)
    score(lab, "gptq", "wiki", 0, 0.1)
    score(lab, "gptq", "wiki", 1, 0.2, threads=4)
    score(lab, "gptq", "random_tokens", 0, 5.0)
    lab._cells["gptq-random_tokens-0"].calib_origins[0] = (
        lab._cells["gptq-random_tokens-0"].calib_origins[0].__class__(name="random_tokens", family="control")
    )
    found = variance([lab.sweep])
    assert set(found.recipe) == {"gptq"}
    assert list(found.source) == ["items", "items"]
    assert list(found.environment) == ["cpu, threads=2", "cpu, threads=4"]
    assert list(found.n_runs) == [1, 1]


def test_a_sweep_without_scores_has_the_columns_and_the_file_reads_back(tmp_path: Any) -> None:
    store, lab = Store(tmp_path), Lab()
    empty = variance([lab.sweep])
    assert {name: str(kind) for name, kind in empty.dtypes.items()} == VARIANCE_COLUMNS
    for draw in range(3):
        score(lab, "gptq", "wiki", draw, 0.1 * draw)
    write_variance(store, "s", empty)
    found = variance([lab.sweep])
    write_variance(store, "s", found)
    read = pd.read_csv(tmp_path / "sweeps" / "s" / "variance.csv")
    assert list(read.columns) == list(VARIANCE_COLUMNS)
    assert read.variance.to_numpy() == pytest.approx(found.variance.to_numpy(float))
    told = (tmp_path / "sweeps" / "s" / "variance.md").read_text()
    assert told.startswith("### What kl varies by (nats/token): m, quick\n")
    assert "| gptq, 16 x 512 | wiki" in told


def test_a_table_has_the_sources_that_the_sweep_has() -> None:
    lab = Lab()
    for draw in range(3):
        score(lab, "gptq", "wiki", draw, 0.05 * draw, names=("kl", "perplexity"))
    score(lab, "rtn", None, 0, 0.2, names=("kl", "perplexity"))
    first, other = variance_tables(variance([lab.sweep]), ["kl", "perplexity"])
    assert first.header == ["recipe", "test", "runs", "clusters", "value", "items", "draws"]
    gptq, rtn = ([cell.value for cell in row] for row in first.rows)
    assert gptq[:4] == ["gptq, 16 x 512", "wiki", "3", "12"]
    assert gptq[6].startswith("0.05 [0.02")
    assert (rtn[0], rtn[2], rtn[6]) == ("rtn", "1", "–")
    assert "logarithm" not in " ".join(first.caption)
    assert "logarithm of perplexity" in " ".join(other.caption)
