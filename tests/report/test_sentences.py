"""Sentences say what the verdicts say, and no more."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from comparison_rows import against_full, comparison, frame, gap, undecided
from quantbench.report.columns import DATA_FREE
from quantbench.report.sentences import sentence, summary

ACCURACY = {"metric": "acc", "unit": "share of items", "higher_is_better": True}
ONE_DRAW = {"n_draws": 1, "n_reference_draws": 1, "verdict": "undecided", "note": "this draw only"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            comparison(),
            "On code, gptq calibrated on wiki is worse than awq: kl 0.120 nats/token higher (95 % [+0.050, +0.190], "
            "3 draws, 24 clusters).",
        ),
        (
            undecided(),
            "On news, the difference between gptq calibrated on wiki and awq is undecided: kl 0.010 nats/token "
            "higher (95 % [-0.010, +0.030], 3 draws, 24 clusters); this test alone finds a difference of 0.03 "
            "nats/token with power 0.8.",
        ),
        (
            undecided(verdict="equivalent", margin=0.04),
            "On news, gptq calibrated on wiki is equivalent to awq within 0.04 nats/token: kl 0.010 nats/token "
            "higher (95 % [-0.010, +0.030], 3 draws, 24 clusters).",
        ),
        (
            against_full(),
            "On code, gptq calibrated on wiki is worse than full precision: perplexity 3.10 % higher (95 % [+1.20 %, "
            "+5.00 %], 3 draws, 24 clusters).",
        ),
        (
            against_full(verdict="equivalent", margin=0.06),
            "On code, gptq calibrated on wiki is lossless within 6.2 % of perplexity at 95 %: perplexity 3.10 % "
            "higher (95 % [+1.20 %, +5.00 %], 3 draws, 24 clusters).",
        ),
        (
            gap(),
            "On code, gptq calibrated on wiki is worse than calibrated on code: kl 0.120 nats/token higher (95 % "
            "[+0.050, +0.190], 3 draws, 24 clusters).",
        ),
        (
            comparison(**ONE_DRAW),
            "On code, one calibration draw does not decide between gptq calibrated on wiki and awq: kl 0.120 "
            "nats/token higher (95 % [+0.050, +0.190], this draw only, 24 clusters).",
        ),
        (
            comparison(reference_recipe="rtn", reference_calib=DATA_FREE, reference_bits=4.5, same_bits=False),
            "On code, gptq calibrated on wiki is worse than rtn: kl 0.120 nats/token higher (95 % [+0.050, +0.190], "
            "3 draws, 24 clusters). They store 4.312 and 4.5 bits per weight.",
        ),
        (
            comparison(n_clusters=5, reliable=False),
            "On code, gptq calibrated on wiki is worse than awq: kl 0.120 nats/token higher (95 % [+0.050, +0.190], "
            "3 draws, 5 clusters). The interval is not reliable: 5 clusters, fewer than 8.",
        ),
        (
            comparison(verdict="not comparable", note="device differs: cpu, cuda", low=None, high=None, stderr=None),
            "On code, gptq calibrated on wiki and awq are not comparable: device differs: cpu, cuda.",
        ),
        (
            comparison(**ACCURACY, difference=-0.05, low=-0.09, high=-0.01),
            "On code, gptq calibrated on wiki is worse than awq: acc 0.050 lower (95 % [-0.090, -0.010], 3 draws, 24 "
            "clusters).",
        ),
    ],
)  # fmt: skip
def test_one_comparison(row: dict[str, Any], words: str) -> None:
    assert sentence(row) == words


def test_no_comparisons_no_sentences() -> None:
    assert summary(frame()) == []


def test_recipes_are_ranked_by_what_was_shown_only() -> None:
    found = summary(frame(comparison(), undecided()))
    assert found == [
        "kl: shown to be better, and nowhere to be worse: awq in 1 of 2 comparisons.",
        "gptq against awq (kl): worse on code when calibrated on wiki (0.120 nats/token higher, 95 % [+0.050, "
        "+0.190]); undecided on news when calibrated on wiki (this test alone finds a difference of 0.03 nats/token "
        "with power 0.8) (3 draws, 24 clusters).",
    ]


def test_a_recipe_of_which_nothing_is_shown_is_no_winner() -> None:
    third = undecided(recipe="hqq", reference_recipe="awq")
    assert summary(frame(comparison(), third))[0] == (
        "kl: shown to be better, and nowhere to be worse: awq in 1 of 2 comparisons; nothing is shown of hqq."
    )
    other_way = comparison(task="news", distribution="news", verdict="better")
    assert summary(frame(comparison(), other_way))[0] == (
        "kl: each recipe that is shown to be better than another is shown to be worse elsewhere."
    )


def test_one_draw_names_no_winner_whatever_its_p_value() -> None:
    found = summary(frame(comparison(**ONE_DRAW), comparison(task="news", distribution="news", **ONE_DRAW)))
    assert found[0] == "kl: no recipe is shown to be better than another in 2 comparisons, with one calibration draw."
    assert found[1].startswith("gptq against awq (kl): not decided by one calibration draw (this draw only, ")
    assert not any(word in found[1] for word in ("worse on", "better on"))


def test_gaps_name_the_text_they_are_lost_on_and_the_one_that_caused_them() -> None:
    news = {"task": "news", "distribution": "news", "reference_calib": "news", "calib": "code"}
    (words,) = summary(frame(gap(), gap(**news, difference=0.2, low=0.1, high=0.3)))
    assert words == (
        "gptq, calibrated on another text than the test's (kl): worse on news when calibrated on code (0.200 "
        "nats/token higher, 95 % [+0.100, +0.300]) and code when calibrated on wiki (0.120 nats/token higher, 95 % "
        "[+0.050, +0.190]) (3 draws, 24 clusters)."
    )


def test_many_differences_are_counted_and_bits_and_few_clusters_told() -> None:
    calibs = [f"text{index}" for index in range(5)]
    rows = [comparison(calib=calib, reference_calib=calib, difference=0.1 + i / 100) for i, calib in enumerate(calibs)]
    odd = comparison(calib="x", reference_calib="x", same_bits=False, reference_bits=4.5, n_clusters=4, reliable=False)
    words = summary(frame(*rows, odd))[1]
    assert "code when calibrated on text4 (0.140 nats/token higher" in words
    assert " and 3 more" in words
    assert words.endswith(
        " They store 4.312 against 4.5 bits per weight. The intervals on code when calibrated on x are not reliable: "
        "they have fewer than 8 clusters."
    )


def test_lossless_is_said_with_its_margin_and_recipes_are_judged_by_kl() -> None:
    equivalent = {"verdict": "equivalent", "margin": 0.06}
    full = [against_full(**equivalent), against_full(task="news", distribution="news", **equivalent)]
    perplexity = comparison(metric="perplexity", unit="per token", ratio=1.1, ratio_low=1.0, ratio_high=1.2)
    found = summary(frame(comparison(), perplexity, *full))
    assert found[-1] == (
        "gptq against full precision (perplexity): lossless within 6.2 % at 95 % on code when calibrated on wiki and "
        "news when calibrated on wiki (3 draws, 24 clusters)."
    )
    assert [words for words in found if "awq" in words] == found[:-1]
    assert not any("perplexity" in words for words in found[:-1])


def test_studies_and_tasks_of_one_distribution_are_told_apart() -> None:
    found = summary(frame(comparison(), comparison(model="qwen"), comparison(task="code long", model="qwen")))
    assert found[1].startswith("demo, smollm2, smoke: On code, ") or found[1].startswith(
        "demo, smollm2, smoke: On code"
    )
    assert "demo, qwen, smoke: gptq against awq (kl): worse on code when calibrated on wiki" in found[3]
    assert "code long when calibrated on wiki" in found[3]


def test_missing_values_of_a_frame_from_a_file_are_not_known() -> None:
    made = frame(comparison(detectable=None, margin=None, note=None, verdict="undecided")).convert_dtypes()
    assert summary(made)[1] == (
        "On code, the difference between gptq calibrated on wiki and awq is undecided: kl 0.120 nats/token higher "
        "(95 % [+0.050, +0.190], 3 draws, 24 clusters)."
    )
    assert isinstance(made, pd.DataFrame)
