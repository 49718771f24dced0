"""`compare SWEEP --against X`: what X means, which arms it is compared with, and what is said of it."""

from __future__ import annotations

import dataclasses
import io

import pandas as pd
import pytest

from drawn_sweep import CLUSTERS, Grid
from quantbench.core.errors import ConfigError, StoreError
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.against import Against, compare_against
from quantbench.report.compare.page import as_csv, as_markdown, as_text
from quantbench.report.compare.pages import against_page
from quantbench.report.margins import margins_of
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

DAY = "2026-01-02"

Sweep = tuple[Store, Manifest]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Manifest]:
    """rtn, and gptq and awq calibrated on two texts in three draws each: gptq on news is the worst of them."""
    grid = Grid(Store(tmp_path_factory.mktemp("drawn")))
    grid.add("rtn", "rtn", 0.25, None)
    for draw in range(3):
        for calib, loss in (("wiki", 0.10), ("news", 0.20)):
            grid.add(f"gptq-{calib}-{draw}", "gptq", loss + 0.002 * draw, calib, draw)
            grid.add(f"awq-{calib}-{draw}", "awq", 0.12 + 0.002 * draw, calib, draw)
    return grid.store, grid.manifest()


def pairs(found: Against) -> list[tuple[str, str]]:
    """Each comparison's two sides, once."""
    rows = [line.row for line in found.lines]
    sides = {(f"{r['recipe']}/{r['calib']}", f"{r['reference_recipe']}/{r['reference_calib']}") for r in rows}
    return sorted(sides)


def verdicts(found: Against) -> dict[tuple[str, str, str], str]:
    """By recipe, calibration set and test."""
    rows = [line.row for line in found.lines]
    return {(row["recipe"], row["calib"], row["task"]): row["verdict"] for row in rows}


def test_a_recipe_is_compared_on_the_same_text_and_draws(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "gptq", ["kl"])
    assert pairs(found) == [
        ("awq/news", "gptq/news"),
        ("awq/wiki", "gptq/wiki"),
        (f"rtn/{DATA_FREE}", "gptq/news"),
        (f"rtn/{DATA_FREE}", "gptq/wiki"),
    ]
    rows = [line.row for line in found.lines]
    assert all(len(line.draws) == 3 for line in found.lines)
    assert {row["metric"] for row in rows} == {"kl"}
    assert not any(row["note"] for row in rows)
    words = verdicts(found)
    assert words["awq", "news", "wiki"] == "better"
    assert words["awq", "wiki", "wiki"] == "worse"
    assert words["rtn", DATA_FREE, "news"] == "worse"
    assert {row["family"] for row in rows} == {"recipe: kl, smollm2, smoke (8 comparisons)"}
    assert all(row["p"] <= row["p_holm"] for row in rows)


def test_a_calibration_set_is_compared_with_the_same_recipe_on_another_text(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "calib=wiki", ["kl"])
    assert pairs(found) == [("awq/news", "awq/wiki"), ("gptq/news", "gptq/wiki")]
    assert not found.reasons
    assert verdicts(found) == {
        ("gptq", "news", "wiki"): "worse",
        ("gptq", "news", "news"): "worse",
        ("awq", "news", "wiki"): "undecided",
        ("awq", "news", "news"): "undecided",
    }
    page = against_page(store, [sweep], "calib=wiki", ["kl"], [], DAY)
    start = "gptq calibrated on news against gptq calibrated on wiki (kl): worse"
    assert any(line.startswith(start) for line in page.answers), page.answers
    assert page.answers[-1] == "kl against calib=wiki, of 4 comparisons: worse in 2, undecided in 2."


def test_draws_of_two_texts_are_no_pairs(drawn: Sweep) -> None:
    store, sweep = drawn
    of_texts, of_recipes = (compare_against(store, [sweep], text, ["kl"]).lines for text in ("calib=wiki", "gptq"))
    line = next(one for one in of_texts if one.row["recipe"] == "awq" and one.row["task"] == "wiki")
    # Each draw of awq moves KL by its own; that cancels beside gptq's same draws, and not beside another text's.
    paired = next(one for one in of_recipes if one.row["recipe"] == "awq" and one.row["task"] == "wiki")
    assert line.spread is not None
    assert paired.spread is not None
    assert paired.spread < line.spread


def test_one_run_stands_for_itself_alone(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "gptq-wiki-1", ["kl"])
    rows = [line.row for line in found.lines]
    others = {f"{row['recipe']}/{row['calib']}" for row in rows}
    assert others == {"gptq/news", "gptq/wiki", "awq/news", "awq/wiki", f"rtn/{DATA_FREE}"}
    notes = {row["note"] for row in rows if (row["recipe"], row["calib"]) == ("awq", "wiki")}
    assert notes == {"this draw only; 2 draws of the candidate left out, which the other side has not"}
    assert set(verdicts(found).values()) == {"undecided"}


def test_a_variant_is_told_by_its_settings(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    for bits, loss in ((4, 0.09), (3, 0.3)):
        for draw in range(2):
            grid.add(f"gptq{bits}{draw}", "gptq", loss, "wiki", draw, bits)
            grid.add(f"awq{bits}{draw}", "awq", loss * 0.9, "wiki", draw, bits)
    sweep = grid.manifest()
    found = compare_against(store, [sweep], "gptq quantizer.weight.bits=4", ["kl"])
    assert pairs(found) == [
        ("awq weight.bits=3/wiki", "gptq weight.bits=4/wiki"),
        ("awq weight.bits=4/wiki", "gptq weight.bits=4/wiki"),
        ("gptq weight.bits=3/wiki", "gptq weight.bits=4/wiki"),
    ]
    same = {line.row["recipe"]: line.row["same_bits"] for line in found.lines}
    assert same == {"awq weight.bits=3": False, "awq weight.bits=4": True, "gptq weight.bits=3": False}
    page = against_page(store, [sweep], "gptq quantizer.weight.bits=4", ["kl"], [], DAY)
    assert any("They store 3.25 and 4.25 bits per weight." in line for line in page.answers), page.answers
    # Without the setting, 3 bits are compared with 3 bits.
    assert pairs(compare_against(store, [sweep], "gptq", ["kl"])) == [
        ("awq weight.bits=3/wiki", "gptq weight.bits=3/wiki"),
        ("awq weight.bits=4/wiki", "gptq weight.bits=4/wiki"),
    ]


def test_sweeps_that_call_recipes_alike_are_compared_by_their_settings(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    manifests = []
    for bits in (4, 8):
        grid.add(f"rtn{bits}", "rtn", 0.25, None, bits=bits)
        grid.add(f"gptq{bits}", "gptq", 0.09, "wiki", bits=bits)
        manifests.append(grid.manifest(f"w{bits}"))
    for order in (1, -1):
        assert pairs(compare_against(store, manifests[::order], "rtn", ["kl"])) == [
            (f"gptq weight.bits={bits}/wiki", f"rtn weight.bits={bits}/{DATA_FREE}") for bits in (4, 8)
        ]


def test_other_amounts_of_text_are_other_arms(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    for n in (8, 16):
        for draw in range(2):
            grid.add(f"gptq{n}{draw}", "gptq", 0.09, "wiki", draw, sizes={"n": n})
            grid.add(f"awq{n}{draw}", "awq", 0.08, "wiki", draw, sizes={"n": n})
    sweep = grid.manifest()
    assert pairs(compare_against(store, [sweep], "gptq", ["kl"])) == [
        ("awq/wiki n=16", "gptq/wiki n=16"),
        ("awq/wiki n=8", "gptq/wiki n=8"),
    ]
    assert pairs(compare_against(store, [sweep], "calib.n=8", ["kl"])) == [
        ("awq/wiki n=16", "awq/wiki n=8"),
        ("gptq/wiki n=16", "gptq/wiki n=8"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hqq", r"against 'hqq': nothing like that in these sweeps\. X is a recipe .*calib=wiki.*run's id\. There are: "
         r"recipes awq, gptq, none, rtn; calibration sets news, wiki"),
        ("calib=code", r"against 'calib=code': nothing like that"),
        ("gptq quantizer.weight.bits=2", r"nothing like that"),
        ("gptq rtn", r"two recipes or runs in one X"),
        ("gptq bits=2", r"'bits=2' is not understood"),
        ("gptq-wiki", r"3 runs begin like that: gptq-wiki-0, gptq-wiki-1"),
        ("", r"nothing like that"),
    ],
)  # fmt: skip
def test_an_x_that_means_nothing_is_answered_with_what_there_is(drawn: Sweep, text: str, message: str) -> None:
    store, sweep = drawn
    with pytest.raises(StoreError, match=message):
        compare_against(store, [sweep], text, ["kl"])


def test_an_x_that_means_several_says_what_they_differ_in(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    for bits in (4, 8):
        grid.add(f"rtn{bits}", "rtn", 0.1, None, bits=bits)
    recipe = {"weight": {"values": "nf4"}}
    config = {"numerics_version": 1, "model": {"path": "m"}, "quantizer": recipe}
    grid.add("nf", "nf4", 0.2, None, config=config)
    with pytest.raises(StoreError, match=r"nf4: not compared, 'rtn' means 2 that differ in weight.bits"):
        compare_against(store, [grid.manifest()], "rtn", ["kl"])


def test_a_run_without_scores_has_no_difference_and_says_so(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn", "rtn", 0.25, None)
    grid.add("gptq0", "gptq", 0.1, "wiki", scored=False)
    grid.add("awq0", "awq", 0.1, "wiki")
    manifest = grid.manifest()
    cells = [dataclasses.replace(cell, status="pending") for cell in manifest.cells]
    page = against_page(store, [dataclasses.replace(manifest, cells=cells)], "rtn", None, [], DAY)
    assert page.answers[0] == "gptq wiki: pending, no scores to compare"
    assert page.answers[-1] == "kl against rtn, of 1 comparison: undecided in 1."


def test_machines_are_not_mixed_silently(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn", "rtn", 0.25, None)
    grid.add("hqq", "hqq", 0.2, None, environment={"device": "cuda:0"})
    page = against_page(store, [grid.manifest()], "rtn", ["kl"], [], DAY)
    assert [row["verdict"] for row in page.rows] == ["not comparable"]
    assert "computed differently: device: cpu, cuda" in page.rows[0]["note"]
    assert any("computed differently" in note for note in page.tables[0].notes)


def test_a_margin_makes_equivalent(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "calib=wiki", ["kl"], {"kl": 0.05})
    assert {word for (recipe, *_), word in verdicts(found).items() if recipe == "awq"} == {"equivalent"}
    with pytest.raises(ConfigError, match=r"margin k1=0.1: no score has this metric"):
        compare_against(store, [sweep], "calib=wiki", ["kl"], {"k1": 0.1})
    with pytest.raises(StoreError, match=r"metric acc: not compared here. There are: perplexity"):
        compare_against(store, [sweep], "calib=wiki", ["acc"])


@pytest.mark.parametrize("text", ["kl", "kl=", "kl=1 %", "kl=nan"])
def test_a_margin_is_a_metric_and_a_number(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--margin {text}: give METRIC=NUMBER, for example kl=0.01"):
        margins_of([text])


def test_a_page_opens_with_what_was_measured_and_closes_with_the_answer(drawn: Sweep) -> None:
    store, sweep = drawn
    page = against_page(store, [sweep], "gptq", None, [], DAY)
    heading = [
        "Model: smollm2",
        "Scale: smoke",
        f"Tests: wiki: {2 * CLUSTERS} windows (12,264 tokens) in {CLUSTERS} clusters; "
        f"news: {2 * CLUSTERS} windows (12,264 tokens) in {CLUSTERS} clusters",
        "Calibration: 4,096 tokens",
        "Draws: 3 of each calibration set",
        "Measured: 2026-01-01; compared: 2026-01-02",
    ]
    assert sorted(page.heading[2].removeprefix("Tests: ").split("; ")) == sorted(
        heading[2].removeprefix("Tests: ").split("; ")
    )
    assert [line for line in page.heading if "Tests" not in line] == [line for line in heading if "Tests" not in line]
    for text, first, last in (
        (as_text(page), "demo: against gptq\nModel: smollm2\n", page.answers[-1] + "\n"),
        (as_markdown(page), "# demo: against gptq\n\n- Model: smollm2\n", page.answers[-1] + "\n"),
        (as_csv(page), "# demo: against gptq\n# Model: smollm2\n", f"# {page.answers[-1]}\n"),
    ):
        assert text.startswith(first)
        assert text.endswith(last)
    assert [table.slug for table in page.tables] == ["compare-perplexity", "compare-kl"]


def test_the_csv_holds_the_numbers(drawn: Sweep) -> None:
    store, sweep = drawn
    page = against_page(store, [sweep], "gptq", None, [], DAY)
    frame = pd.read_csv(io.StringIO(as_csv(page)), comment="#")
    assert len(frame) == len(page.rows) == 16
    ppl = frame[frame["metric"] == "perplexity"]
    assert (ppl["difference"] - (ppl["value"] - ppl["reference_value"])).abs().max() < 1e-8
    assert ((ppl["ratio_low"] < ppl["ratio"]) & (ppl["ratio"] < ppl["ratio_high"])).all()
    assert ((ppl["low"] < ppl["difference"]) & (ppl["difference"] < ppl["high"])).all()
    assert frame["reliable"].dtype == bool


def test_draws_are_shown_with_their_spread(drawn: Sweep) -> None:
    store, sweep = drawn
    table = against_page(store, [sweep], "gptq", ["kl"], [], DAY).tables[0]
    assert table.header[-2:] == ["draws", "spread"]
    line = compare_against(store, [sweep], "gptq", ["kl"]).lines[0]
    assert len(table.rows[0][-2].value.split()) == 3
    assert float(table.rows[0][-1].value) == pytest.approx(line.spread, rel=0.05)
    assert sum(line.draws) / 3 == pytest.approx(line.row["difference"])
