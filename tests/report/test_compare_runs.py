"""`compare RUN RUN`: the settings that differ, the scores, and what a test of one draw may say."""

from __future__ import annotations

import dataclasses

import pytest

from drawn_sweep import Grid, windows
from quantbench.core.errors import StoreError
from quantbench.report.compare.page import as_markdown
from quantbench.report.compare.pages import runs_page
from quantbench.report.compare.two_runs import find_run, pair_of
from quantbench.report.table import Table
from quantbench.store.store import Store
from stored_sweep import score

DAY = "2026-01-02"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    grid = Grid(Store(tmp_path_factory.mktemp("runs")))
    grid.add("rtn4", "rtn", 0.25, None)
    grid.add("rtn3", "rtn", 0.5, None, bits=3)
    grid.add("gptq0", "gptq", 0.1, "wiki")
    grid.add("gptq1", "gptq", 0.1, "news", draw=1)
    grid.add("bare", "gptq", 0.1, "wiki", draw=2, scored=False)
    return grid.store


def column(table: Table, index: int) -> dict[str, str]:
    return {row[0].value: row[index].value for row in table.rows}


def test_settings_that_differ_are_shown_with_both_values(runs: Store) -> None:
    page = runs_page(runs, "gptq0", "gptq1", None, [], DAY)
    assert page.title == "Run gptq0 (gptq, calibrated on wiki) against run gptq1 (gptq, calibrated on news)"
    first, second = (column(page.tables[0], index) for index in (1, 2))
    assert {key: (first[key], second[key]) for key in first if "." in key} == {
        "calib.source.hub": ("wiki", "news"),
        "calib.draw": ("0", "1"),
    }
    assert first["effective bits"] == "4.25"
    assert first["calibration tokens"] == "4,096"
    other = column(runs_page(runs, "gptq0", "rtn4", None, [], DAY).tables[0], 2)
    assert other["quantizer.rounding.damp"] == "–"


def test_recipes_without_draws_are_decided_and_calibrated_ones_are_not(runs: Store) -> None:
    free = runs_page(runs, "rtn3", "rtn4", ["kl"], [], DAY)
    assert "They store 3.25 and 4.25 bits per weight." in " ".join(free.answers) or "against 4.25" in " ".join(
        free.answers
    )
    assert free.answers[-1] == "kl against rtn4, of 2 comparisons: worse in 2."
    one_draw = runs_page(runs, "gptq0", "rtn4", ["kl"], [], DAY)
    assert one_draw.answers[-1] == "kl against rtn4, of 2 comparisons: undecided in 2."
    assert "Draws: 1 of each calibration set; what is found holds for this draw only" in one_draw.heading
    assert all(row["p"] < 1e-6 for row in one_draw.rows)


def test_scores_stand_side_by_side(runs: Store) -> None:
    table = runs_page(runs, "rtn3", "rtn4", ["kl"], [], DAY).tables[1]
    assert table.header == ["test", "metric", "rtn3", "rtn4"]
    assert [row[0].value for row in table.rows] == ["news [bbbbbbbb]", "wiki [aaaaaaaa]"]
    assert all(float(row[2].value.partition("±")[0]) > float(row[3].value.partition("±")[0]) for row in table.rows)


def test_a_run_without_scores_says_so(runs: Store) -> None:
    page = runs_page(runs, "gptq0", "bare", None, [], DAY)
    assert list(page.answers) == [
        "Run bare has no scores: no difference can be shown.",
        "There is nothing to compare: no verdict.",
    ]
    assert as_markdown(page).rstrip().endswith("no verdict.")


def test_scores_under_two_protocols_are_not_compared(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn4", "rtn", 0.25, None)
    grid.add("hqq4", "hqq", 0.2, None, scored=False)
    frame = windows("wiki", 0.2, 1)
    values = {"windows": len(frame), "length": 256}
    store.save_score(score("hqq4", frame, protocol="d" * 64, protocol_values=values), frame)
    page = runs_page(store, "rtn4", "hqq4", None, [], DAY)
    assert page.answers[0] == "wiki: not compared, it was scored under two protocols (different: length)."


def test_what_cannot_be_compared_is_refused(runs: Store) -> None:
    with pytest.raises(StoreError, match=r"gptq: 2 runs begin like that: gptq0, gptq1"):
        find_run(runs, "gptq")
    with pytest.raises(StoreError, match=r"hqq: no such run, in .*; 6 runs are stored"):
        find_run(runs, "hqq")
    with pytest.raises(StoreError, match=r"that is one run; name two"):
        pair_of(runs, "rtn4", "rtn4")
    with pytest.raises(StoreError, match=r"metric acc: not compared here. There are: perplexity"):
        runs_page(runs, "rtn3", "rtn4", ["acc"], [], DAY)


def test_runs_of_two_models_are_refused(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn4", "rtn", 0.25, None)
    record = store.load_run("rtn4")
    assert record is not None
    config = record.config | {"model": {"path": "other", "dtype": "float32"}}
    choices = record.choices | {"model": "opt"}
    store.save_run(dataclasses.replace(record, run_id="opt4", config=config, choices=choices))
    with pytest.raises(StoreError, match=r"two models \(smollm2 and opt; different: path, dtype\)"):
        pair_of(store, "rtn4", "opt4")
