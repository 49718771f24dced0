"""`compare SWEEP --against X`: what X means, which arms it is compared with, and what is said of it."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from drawn_sweep import CLUSTERS, Grid
from quantbench.core.errors import StoreError
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.against import Against, compare_against
from quantbench.report.compare.page import as_csv, as_markdown, as_text
from quantbench.report.compare.pages import against_page
from quantbench.report.compare.rows import margins_of, row_of
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
    sides = [
        (f"{c.candidate.recipe}/{c.candidate.calib}", f"{c.reference.recipe}/{c.reference.calib}")
        for c in found.compared
    ]
    return list(dict.fromkeys(sides))


def test_a_recipe_is_compared_on_the_same_text_and_draws(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "gptq", ["kl"])
    assert pairs(found) == [
        ("awq/news", "gptq/news"),
        ("awq/wiki", "gptq/wiki"),
        (f"rtn/{DATA_FREE}", "gptq/news"),
        (f"rtn/{DATA_FREE}", "gptq/wiki"),
    ]
    assert all(len(one.found.draws) == 3 and not one.found.one_draw for one in found.compared)
    assert {one.metric for one in found.compared} == {"kl"}
    words = {(c.candidate.recipe, c.candidate.calib, c.scored["task"]): str(c.verdict) for c in found.compared}
    assert words["awq", "news", "wiki"] == "better"
    assert words["awq", "wiki", "wiki"] == "worse"
    assert words["rtn", DATA_FREE, "news"] == "worse"
    assert found.compared[0].family == "comparisons with gptq in kl: 8"
    assert all(one.p is not None and one.p_holm is not None and one.p <= one.p_holm for one in found.compared)


def test_a_calibration_set_is_compared_with_the_same_recipe_on_another_text(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "calib=wiki", ["kl"])
    assert pairs(found) == [("awq/news", "awq/wiki"), ("gptq/news", "gptq/wiki")]
    assert not found.reasons
    words = {(one.candidate.recipe, one.scored["task"]): str(one.verdict) for one in found.compared}
    assert words == {
        ("gptq", "wiki"): "worse",
        ("gptq", "news"): "worse",
        ("awq", "wiki"): "undecided",
        ("awq", "news"): "undecided",
    }
    page = against_page(store, [sweep], "calib=wiki", ["kl"], [], DAY)
    assert any(
        line.startswith("gptq calibrated on news against gptq calibrated on wiki (kl): worse") for line in page.answers
    )
    assert page.answers[-1] == "kl against calib=wiki, of 4 comparisons: worse in 2, undecided in 2."


def test_one_run_stands_for_itself_alone(drawn: Sweep) -> None:
    store, sweep = drawn
    found = compare_against(store, [sweep], "gptq-wiki-1", ["kl"])
    others = {f"{c.candidate.recipe}/{c.candidate.calib}" for c in found.compared}
    assert others == {"gptq/news", "gptq/wiki", "awq/news", "awq/wiki", f"rtn/{DATA_FREE}"}
    by_arm = {(c.candidate.recipe, c.candidate.calib): c for c in found.compared}
    assert by_arm["awq", "wiki"].found.n_draws == 1
    assert by_arm["awq", "wiki"].found.note == "2 draws without a counterpart left out; this draw only"
    assert {str(one.verdict) for one in found.compared} == {"undecided"}


def test_a_variant_is_told_by_its_settings(store: Store) -> None:
    grid = Grid(store)
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
    assert [one.same_bits for one in found.compared[::2]] == [False, True, False]
    page = against_page(store, [sweep], "gptq quantizer.weight.bits=4", ["kl"], [], DAY)
    assert any("They store 3.25 against 4.25 bits per weight." in line for line in page.answers)
    # Without the setting, 3 bits are compared with 3 bits.
    assert pairs(compare_against(store, [sweep], "gptq", ["kl"])) == [
        ("awq weight.bits=3/wiki", "gptq weight.bits=3/wiki"),
        ("awq weight.bits=4/wiki", "gptq weight.bits=4/wiki"),
    ]


def test_other_amounts_of_text_are_other_arms(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    for n in (8, 16):
        for draw in range(2):
            grid.add(f"gptq{n}{draw}", "gptq", 0.09, "wiki", draw, sizes={"n": n})
            grid.add(f"awq{n}{draw}", "awq", 0.08, "wiki", draw, sizes={"n": n})
    sweep = grid.manifest()
    assert pairs(compare_against(store, [sweep], "gptq", ["kl"])) == [
        ("awq/wiki n=8", "gptq/wiki n=8"),
        ("awq/wiki n=16", "gptq/wiki n=16"),
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
    page = against_page(store, [grid.manifest()], "rtn", None, [], DAY)
    assert page.answers[0] == "gptq calibrated on wiki: no difference, it has no score that rtn has"
    assert "awq against rtn (kl)" in " ".join(page.answers) or "awq calibrated on wiki" in " ".join(page.answers)


def test_machines_are_not_mixed_silently(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn", "rtn", 0.25, None)
    grid.add("hqq", "hqq", 0.2, None, environment={"device": "cuda:0"})
    found = compare_against(store, [grid.manifest()], "rtn", ["kl"]).compared
    assert [(str(one.verdict), one.found.note) for one in found if one.candidate.recipe == "hqq"] == [
        ("not comparable", "other device: cuda:0 and cpu")
    ]


def test_a_margin_makes_equivalent(drawn: Sweep) -> None:
    store, sweep = drawn
    margins = margins_of(["kl=0.05"], ["kl", "perplexity"])
    found = compare_against(store, [sweep], "calib=wiki", ["kl"], margins).compared
    assert {str(one.verdict) for one in found if one.candidate.recipe == "awq"} == {"equivalent"}
    assert all(one.p_equivalence is not None for one in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k1=0.1", r"--margin k1=0.1: no such metric here. There are: kl, acc"),
        ("kl=-1", r"--margin kl=-1: a margin is METRIC=NUMBER, a positive number in the metric's unit \(nats/token"),
        ("kl=nan", r"a positive number"),
        ("kl", r"a positive number"),
        ("kl=1 %", r"a positive number"),
        ("acc=1", r"acc is a share of items, at most 1: one percent is 0.01"),
    ],
)
def test_a_wrong_margin_is_refused(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        margins_of([text], ["kl", "acc"])


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
    first = compare_against(store, [sweep], "gptq", ["kl"]).compared[0]
    assert len(table.rows[0][-2].value.split()) == 3
    assert float(table.rows[0][-1].value) == pytest.approx(first.found.spread, rel=0.05)
    assert row_of(first)["run_ids"] == "awq-news-0 awq-news-1 awq-news-2"
