"""Comparisons of arms: which there are, over which draws, with what error, and which word they get."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_up_arms import Lab, answers, text
from quantbench.core.errors import ConfigError
from quantbench.metrics.draws import crossed_error, gap_error
from quantbench.metrics.multiplicity import benjamini_hochberg, holm
from quantbench.metrics.paired_shares import bonett_price, mcnemar_mid_p
from quantbench.metrics.totals import Totals
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import COMPARISON_COLUMNS, KINDS
from quantbench.report.comparisons import compared

N, PER_CLUSTER = 48, 4
N_CLUSTERS = N // PER_CLUSTER


def noise(*key: int, scale: float = 0.01) -> Any:
    return scale * np.random.default_rng(key).normal(size=N)


def sweep(draws: int = 3, gptq: float = 0.10, awq: float = 0.05, gap: float = 0.04) -> Lab:
    """rtn, gptq and awq on wiki and news, tested on both: KL rises by `gap` on the text not calibrated on."""
    lab = Lab()
    for index, task in enumerate(("wiki", "news")):
        hard = noise(index, scale=0.02)
        lab.add("none", None, 0, task, text(1.0 + hard, names=("nll",)), names=("perplexity",))
        names = ("perplexity", "kl")
        lab.add("rtn", None, 0, task, text(0.2 + hard, names=("kl", "nll")), names=names)
        for calib in ("wiki", "news"):
            for draw in range(draws):
                away = gap * (calib != task)
                for recipe, loss in (("gptq", gptq), ("awq", awq)):
                    shift = 0.001 * draw + noise(index, draw, len(recipe), len(calib), scale=0.004)
                    values = loss + away + hard + shift
                    lab.add(recipe, calib, draw, task, text(values, names=("kl", "nll")), names=names)
    return lab


@cache
def usual() -> tuple[Lab, pd.DataFrame]:
    """The sweep as it stands, and its comparisons; not to be changed."""
    lab = sweep()
    return lab, frame_of(lab)


def frame_of(lab: Lab, margins: dict[str, float] | None = None) -> pd.DataFrame:
    return compared([lab.sweep], margins)


def only(frame: pd.DataFrame, **values: Any) -> pd.Series[Any]:
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def of_recipes(frame: pd.DataFrame, recipe: str, reference: str, task: str) -> pd.Series[Any]:
    """KL of two recipes calibrated on wiki, or on none."""
    names = {"recipe": recipe, "reference_recipe": reference, "calib": "wiki", "task": task}
    return only(frame, kind="recipe", metric="kl", **names)


def table(lab: Lab, recipe: str, calib: str | None, task: str, metric: str, draws: int = 3) -> Any:
    """Pseudo-values [D, G]."""
    ids = [f"{recipe}-{calib}-{draw}" for draw in range(draws)] if calib else [recipe]
    found: list[Totals] = [lab._scores[run_id, task, "p"][1][metric] for run_id in ids]
    return np.stack([one.pseudo_values() for one in found])


def test_every_comparison_of_a_sweep_has_a_row() -> None:
    _, frame = usual()
    assert list(frame.columns) == list(COMPARISON_COLUMNS)
    assert [str(kind) for kind in frame.dtypes] == [column.dtype for column in COMPARISON_COLUMNS.values()]
    counts = frame.groupby(["kind", "metric"]).size().to_dict()
    assert counts == {
        ("full precision", "perplexity"): 5 * 2,  # rtn, and two recipes on two sets
        ("recipe", "kl"): 3 * 2 * 2,  # pairs of three recipes, sets, texts
        ("recipe", "perplexity"): 3 * 2 * 2,
        ("transfer gap", "kl"): 2 * 2,
        ("transfer gap", "perplexity"): 2 * 2,
    }
    keys = ["kind", "metric", "task", "recipe", "calib", "reference_recipe", "reference_calib"]
    assert not frame.duplicated(keys).any()
    assert frame["kind"].drop_duplicates().tolist() == list(KINDS)


def test_two_recipes_are_compared_over_draws_and_clusters() -> None:
    lab, frame = usual()
    row = only(frame, kind="recipe", recipe="gptq", reference_recipe="awq", calib="wiki", task="news", metric="kl")
    y = table(lab, "gptq", "wiki", "news", "kl") - table(lab, "awq", "wiki", "news", "kl")
    error, difference = crossed_error(y), float(y.mean())
    assert (row["n_draws"], row["n_reference_draws"], row["n_clusters"], row["n_items"]) == (3, 3, N_CLUSTERS, N)
    assert row["run_ids"] == "gptq-wiki-0 gptq-wiki-1 gptq-wiki-2"
    assert row["difference"] == pytest.approx(difference) == pytest.approx(row["value"] - row["reference_value"])
    assert row["stderr"] == pytest.approx(error.stderr)
    assert (row["low"], row["high"]) == pytest.approx(error.interval(difference), rel=1e-6)
    assert row["p"] == pytest.approx(error.p_value(difference), rel=1e-5)
    assert row["detectable"] == pytest.approx(error.detectable(), rel=1e-6)
    assert (row["verdict"], row["reliable"], pd.isna(row["note"]), row["same_bits"]) == ("worse", True, True, True)


def test_a_data_free_recipe_is_compared_with_every_draw() -> None:
    lab, frame = usual()
    row = only(frame, kind="recipe", recipe="awq", reference_recipe="rtn", calib="wiki", task="news", metric="kl")
    y = table(lab, "awq", "wiki", "news", "kl") - table(lab, "rtn", None, "news", "kl")
    assert (row["reference_calib"], row["n_draws"], row["n_reference_draws"]) == (DATA_FREE, 3, 1)
    assert row["stderr"] == pytest.approx(crossed_error(y).stderr)
    assert (row["relation"], row["distribution"]) == ("near OOD", "news")


def test_a_perplexity_is_tested_on_its_logarithm_and_shown_as_a_ratio() -> None:
    lab, frame = usual()
    row = only(frame, kind="full precision", recipe="gptq", calib="wiki", task="wiki")
    y = table(lab, "gptq", "wiki", "wiki", "perplexity") - table(lab, "none", None, "wiki", "perplexity")
    error, difference = crossed_error(y), float(y.mean())
    low, high = error.interval(difference)
    assert row["stderr"] == pytest.approx(error.stderr)
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx(
        tuple(map(math.exp, (difference, low, high)))
    )
    assert row["value"] == pytest.approx(row["reference_value"] * row["ratio"])
    assert row["low"] == pytest.approx(row["reference_value"] * (row["ratio_low"] - 1))
    assert (row["reference_recipe"], row["reference_bits"], row["bits"]) == ("none", 16.0, 4.25)
    assert not row["same_bits"]


def test_a_transfer_gap_counts_the_draws_of_both_sets_and_is_positive_for_a_loss() -> None:
    lab, frame = usual()
    row = only(frame, kind="transfer gap", recipe="gptq", calib="news", task="wiki", metric="kl")
    y_a, y_b = table(lab, "gptq", "news", "wiki", "kl"), table(lab, "gptq", "wiki", "wiki", "kl")
    error, difference = gap_error(y_a, y_b), float(y_a.mean() - y_b.mean())
    assert row["difference"] == pytest.approx(difference)
    assert row["difference"] == pytest.approx(0.04, abs=0.01)
    assert row["stderr"] == pytest.approx(error.stderr)
    assert (row["low"], row["high"]) == pytest.approx(error.interval(difference), rel=1e-6)
    assert (row["reference_recipe"], row["reference_calib"], row["verdict"]) == ("gptq", "wiki", "worse")


def test_one_draw_decides_nothing_but_data_free_recipes_have_none_to_vary() -> None:
    lab = sweep(draws=1)
    frame = frame_of(lab)
    calibrated = frame[(frame["calib"] != DATA_FREE)]
    assert set(calibrated["note"]) == {"this draw only"}
    assert set(calibrated["verdict"]) == {"undecided"}
    row = only(frame, kind="full precision", recipe="rtn", task="wiki")
    assert (row["verdict"], pd.isna(row["note"])) == ("better", True)
    y = table(lab, "gptq", "wiki", "wiki", "kl", 1) - table(lab, "awq", "wiki", "wiki", "kl", 1)
    row = only(frame, kind="recipe", recipe="gptq", reference_recipe="awq", calib="wiki", task="wiki", metric="kl")
    assert row["stderr"] == pytest.approx(y[0].std(ddof=1) / math.sqrt(N_CLUSTERS))
    assert row["p"] < 0.001


def test_draws_that_only_one_side_has_are_left_out_and_said() -> None:
    lab = sweep()
    for draw in (3, 4):
        lab.add("gptq", "wiki", draw, "wiki", text(0.5 + noise(draw)))
    row = only(
        frame_of(lab), kind="recipe", recipe="gptq", reference_recipe="awq", calib="wiki", task="wiki", metric="kl"
    )
    assert (row["n_draws"], row["n_reference_draws"]) == (3, 3)
    assert row["note"] == "2 draws of the candidate left out, which the other side has not"
    assert row["value"] == pytest.approx(table(lab, "gptq", "wiki", "wiki", "kl").mean())


def test_draws_of_which_none_is_common_are_independent() -> None:
    lab = Lab()
    hard = noise(1, scale=0.2)
    for draw in range(3):
        lab.add("awq", "wiki", draw, "wiki", text(0.1 + 0.01 * draw + hard))
        lab.add("gptq", "wiki", draw + 3, "wiki", text(0.2 + 0.01 * draw + hard))
    row = only(frame_of(lab), kind="recipe", metric="kl")
    y_a = np.stack([lab._scores[f"gptq-wiki-{draw}", "wiki", "p"][1]["kl"].pseudo_values() for draw in (3, 4, 5)])
    assert row["stderr"] == pytest.approx(gap_error(y_a, table(lab, "awq", "wiki", "wiki", "kl")).stderr)
    assert row["note"] == "no draw in common: not paired"


def test_families_are_the_pairs_and_texts_of_a_kind_and_metric() -> None:
    _, frame = usual()
    for _, family in frame.groupby(["kind", "metric"]):
        assert family["p_holm"].tolist() == pytest.approx(holm(family["p"].tolist()))
        assert family["family"].nunique() == 1
    assert "recipe: kl, m, quick (12 comparisons)" in set(frame["family"])
    for _, kind in frame.groupby("kind"):
        assert kind["p_bh"].tolist() == pytest.approx(benjamini_hochberg(kind["p"].tolist()))


def test_a_margin_makes_small_differences_equivalent_and_adjusts_for_their_number() -> None:
    lab = sweep(gptq=0.05, awq=0.05)
    plain, stated = frame_of(lab), frame_of(lab, {"kl": 0.05})
    chosen = {
        "kind": "recipe",
        "metric": "kl",
        "recipe": "gptq",
        "reference_recipe": "awq",
        "calib": "wiki",
        "task": "wiki",
    }
    assert only(plain, **chosen)["verdict"] == "undecided"
    assert pd.isna(only(plain, **chosen)["margin"])
    assert only(stated, **chosen)["verdict"] == "equivalent"
    family = stated[(stated["kind"] == "recipe") & (stated["metric"] == "kl")]
    alone = []
    for _, row in family.iterrows():
        calib = row["calib"]
        y = table(lab, row["recipe"], calib, row["task"], "kl")
        reference = row["reference_recipe"]
        y = y - table(lab, reference, None if reference == "rtn" else calib, row["task"], "kl")
        alone.append(crossed_error(y).equivalence_p(float(y.mean()), 0.05))
    assert family["p_equivalence"].tolist() == pytest.approx(holm(alone), rel=1e-4)
    assert stated[stated["metric"] == "perplexity"]["p_equivalence"].isna().all()


@pytest.mark.parametrize(
    ("margins", "told"),
    [
        ({"kld": 0.1}, r"margin kld=0\.1: no score has this metric\. There are: kl, perplexity"),
        ({"kl": 0.0}, r"margin kl=0\.0: a margin is a positive number, here in nats/token"),
        ({"kl": math.nan}, r"margin kl=nan: a margin is a positive number"),
        ({"perplexity": 2.0}, r"a perplexity 7\.39 times as large would be called equivalent.*nats"),
    ],
)
def test_margins_that_are_none_are_refused(margins: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        frame_of(sweep(draws=1), margins)


def test_a_margin_in_percent_of_a_share_is_refused() -> None:
    lab = Lab()
    lab.add("none", None, 0, "nli", answers([1, 0, 1]), names=("accuracy",))
    lab.add("rtn", None, 0, "nli", answers([1, 0, 0]), names=("accuracy",))
    with pytest.raises(
        ConfigError, match=r"margin accuracy=1: a difference of shares is below 1; one point of 100 is 0\.01"
    ):
        frame_of(lab, {"accuracy": 1})


def test_right_or_wrong_answers_are_compared_by_those_that_changed() -> None:
    lab, rng = Lab(), np.random.default_rng(0)
    full = rng.uniform(size=200) < 0.7
    ours = full ^ (rng.uniform(size=200) < 0.06)
    lab.add("none", None, 0, "nli", answers(full), names=("accuracy",))
    lab.add("rtn", None, 0, "nli", answers(ours), names=("accuracy",))
    lab.add("hqq", None, 0, "nli", answers(full), names=("accuracy",))
    frame = frame_of(lab)
    gained, lost = int((ours & ~full).sum()), int((full & ~ours).sum())
    row = only(frame, kind="full precision", recipe="rtn")
    assert (row["metric"], row["p"]) == ("accuracy", pytest.approx(mcnemar_mid_p(gained, lost)))
    assert (row["low"], row["high"]) == pytest.approx(bonett_price(gained, lost, 200), rel=1e-6)
    same = only(frame, kind="full precision", recipe="hqq")
    assert (same["difference"], same["p"], same["verdict"]) == (0, 1, "undecided")
    assert same["low"] < 0 < same["high"]  # no discordant item is no proof that there are none
    against = only(frame, kind="recipe", metric="flips_wrong")
    assert (against["recipe"], against["value"], against["reference_value"]) == ("rtn", lost / 200, 0)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"threads": 8}, "computed differently: threads: 2, 8"),
        ({"device": "cuda:0", "gpu": "H200"}, "computed differently: device: H200, cpu; threads: 2, None"),
        ({"config": {"model": {"dtype": "float32", "revision": "b"}}}, "other models: model.revision=b / None"),
    ],
)
def test_what_was_computed_otherwise_is_not_comparable(changed: dict[str, Any], told: str) -> None:
    lab = Lab()
    lab.add("awq", None, 0, "wiki", text(noise(1)))
    lab.add("gptq", None, 0, "wiki", text(noise(2)), **changed)
    row = only(frame_of(lab), kind="recipe")
    assert (row["verdict"], row["note"]) == ("not comparable", told)
    assert row[["stderr", "low", "high", "p", "p_holm", "detectable"]].isna().all()
    assert row["value"] == pytest.approx(noise(2).mean())


def test_other_items_other_protocols_and_a_missing_baseline_are_said() -> None:
    lab = Lab()
    lab.add("awq", None, 0, "wiki", text(noise(1)))
    lab.add("gptq", None, 0, "wiki", text(noise(2), per_cluster=6))
    lab.add("none", None, 0, "wiki", text(noise(0), names=("nll",)), names=("nll",), protocol="q")
    frame = frame_of(lab)
    assert only(frame, kind="recipe")["note"] == "other items, or the same in other clusters"
    lab.add("rtn", None, 0, "wiki", text(noise(1), names=("nll",)), names=("nll",))
    lab.add("rtn", None, 0, "news", text(noise(1), names=("nll",)), names=("nll",))
    frame = frame_of(lab)
    told = frame[frame["kind"] == "full precision"].set_index("task")
    assert told["note"].to_dict() == {
        "wiki": "no score of full precision, only under q",
        "news": "no score of full precision",
    }
    assert set(told["verdict"]) == {"not comparable"}
    assert told["reference_value"].isna().all()


def test_a_difference_that_is_the_same_everywhere_has_no_error() -> None:
    lab = Lab()
    lab.add("awq", None, 0, "wiki", text(np.zeros(N)))
    lab.add("gptq", None, 0, "wiki", text(np.full(N, 0.5)))
    lab.add("rtn", None, 0, "wiki", text(np.zeros(N)))
    frame = frame_of(lab, {"kl": 0.01})
    row = only(frame, recipe="gptq", reference_recipe="awq")
    assert (row["verdict"], pd.isna(row["p"])) == ("undecided", True)
    assert row["note"].startswith("the difference is the same in every cluster")
    same = only(frame, recipe="rtn", reference_recipe="awq")
    assert (same["difference"], same["p"], same["verdict"]) == (0, 1, "equivalent")


def test_one_cluster_gives_no_error_and_few_are_marked() -> None:
    lab = Lab()
    for task, per_cluster in (("one", N), ("few", 7)):
        lab.add("awq", None, 0, task, text(noise(1), per_cluster))
        lab.add("gptq", None, 0, task, text(noise(2), per_cluster))
    frame = frame_of(lab)
    assert only(frame, task="one")["verdict"] == "not comparable"
    assert only(frame, task="one")["note"] == "no error: one cluster, or a metric without influences"
    assert not frame["reliable"].any()
    assert only(frame, task="few")["p"] > 0


def test_a_metric_without_influences_has_values_and_no_error() -> None:
    lab = sweep(draws=2)
    for _, totals, _ in lab._scores.values():
        if "kl" in totals:
            totals["kl"] = dataclasses.replace(totals["kl"], totals=np.full(N_CLUSTERS, np.nan))
    frame = frame_of(lab)
    rows = frame[frame["metric"] == "kl"]
    assert set(rows["verdict"]) == {"not comparable"}
    assert rows["difference"].notna().all()
    assert rows[["stderr", "p", "p_holm", "p_bh", "family"]].isna().all(axis=None)
    assert set(frame[frame["metric"] == "perplexity"]["verdict"]) != {"not comparable"}


def test_a_damaged_score_is_left_out_of_its_arm() -> None:
    lab = sweep()
    lab.broken.add(("gptq-wiki-1", "wiki", "p"))
    row = of_recipes(frame_of(lab), "gptq", "awq", "wiki")
    assert (row["n_draws"], row["n_reference_draws"], row["run_ids"]) == (2, 2, "gptq-wiki-0 gptq-wiki-2")
    assert row["note"] == "1 draw of the reference left out, which the other side has not"


def test_two_recipes_under_one_name_stay_apart() -> None:
    lab = Lab()
    for bits in (3, 4):
        config = {"quantizer": {"weight": {"bits": bits, "group_size": 64}}}
        for draw in (0, 1):
            lab.add("gptq", "wiki", draw, "wiki", text(noise(bits, draw)), config=config, prefix=f"{bits}-")
    row = only(frame_of(lab), kind="recipe")
    assert {row["recipe"], row["reference_recipe"]} == {"gptq weight.bits=3", "gptq weight.bits=4"}
    assert row["n_draws"] == 2


def test_seeds_of_a_recipe_are_draws_of_its_arm() -> None:
    lab = Lab()
    for seed in (0, 1, 2):
        config = {"quantizer": {"rounding": {"seed": seed}}}
        override = f"quantizer.rounding.seed={seed}"
        lab.add("quip", "wiki", 0, "wiki", text(noise(seed)), config=config, overrides=[override])
    lab.add("rtn", None, 0, "wiki", text(noise(9)))
    row = only(frame_of(lab), kind="recipe")
    assert (row["recipe"], row["n_draws"], pd.isna(row["note"])) == ("quip", 3, True)


def test_a_sweep_without_scores_has_an_empty_frame_of_the_same_columns() -> None:
    frame = frame_of(Lab())
    assert len(frame) == 0
    assert [str(kind) for kind in frame.dtypes] == [column.dtype for column in COMPARISON_COLUMNS.values()]
