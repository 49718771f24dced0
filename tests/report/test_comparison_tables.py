"""Tables of comparisons, and of bits against loss."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from comparison_rows import against_full, comparison, frame, gap, undecided
from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_tables import MOST_LINES, comparison_tables
from quantbench.report.evidence import Evidence
from quantbench.report.pareto import behind, pareto_tables
from quantbench.report.render import console
from quantbench.report.writing import write_tables
from quantbench.store.store import Store
from stored_sweep import build

WIKI: dict[str, Any] = {"task": "wiki", "distribution": "wiki", "protocol": "a" * 64}
AGAINST_RTN: dict[str, Any] = {
    "run_ids": "wiki-gptq",
    "reference_recipe": "rtn",
    "reference_calib": DATA_FREE,
    "reference_run_ids": "rtn",
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pd.DataFrame]:
    store, manifest = build(tmp_path_factory.mktemp("stored"))
    return store, collate(store, [manifest])


@pytest.fixture
def results(stored: tuple[Store, pd.DataFrame]) -> pd.DataFrame:
    return stored[1].copy()


def test_each_comparison_has_its_interval_adjusted_p_value_and_word(results: pd.DataFrame) -> None:
    rows = [
        comparison(**WIKI, **AGAINST_RTN, reference_bits=4.5, same_bits=False, n_clusters=5, reliable=False),
        undecided(**WIKI, **AGAINST_RTN, calib="news", p_holm=0.4),
        against_full(**WIKI, p_holm=1e-9),
        gap(**WIKI, calib="news", reference_calib="wiki", n_reference_draws=2),
    ]
    made = comparison_tables(results, ["perplexity", "kl"], Evidence(frame(*rows)))
    assert [table.slug for table in made] == [
        "full-precision-perplexity-smollm2-smoke",
        "recipes-kl-smollm2-smoke",
        "gaps-kl-smollm2-smoke",
    ]
    full, recipes, gaps = ([[cell.value for cell in row] for row in table.rows] for table in made)
    assert full == [
        ["gptq", "wiki", "wiki", "3", "20.6200", "20.0000", "+3.10 %", "[+1.20 %, +5.00 %]", "<0.0001", "worse", "2 %"]
    ]
    assert recipes[0][:4] == ["gptq", "rtn", "wiki", "wiki"]
    assert recipes[0][7:11] == ["+0.120", "[+0.050, +0.190]", "0.003", "worse"]
    assert recipes[1][2:4] == ["news", "wiki"]
    assert recipes[1][-2:] == ["undecided", "0.03 nats/token"]
    assert gaps[0][:5] == ["gptq", "news", "wiki", "wiki", "3 / 2"]
    text = console(made[1])
    assert "[1] not reliable: fewer than 8 clusters" in text
    assert "[2] other effective bits: 4.312 against 4.5 per weight" in text
    assert made[1].opening[0] == "Model smollm2, scale smoke."
    assert made[1].opening[1] == "Tests: n = 8 windows (4,088 tokens, 8 clusters) per column."
    assert made[1].closing[0].startswith("gptq against rtn (kl): worse on wiki when calibrated on wiki")


def test_what_a_long_table_leaves_out_is_counted(results: pd.DataFrame) -> None:
    many = [undecided(**WIKI, **AGAINST_RTN, calib=f"set{index}") for index in range(MOST_LINES + 20)]
    decided = comparison(**WIKI, **AGAINST_RTN)
    (table,) = comparison_tables(results, ["kl"], Evidence(frame(*many, decided)))
    assert len(table.rows) == MOST_LINES
    assert table.rows[-1][-2].value == "worse"
    assert "[1] not shown here, but in comparisons.csv: 21 undecided" in table.notes


def test_without_comparisons_there_are_no_such_tables(results: pd.DataFrame) -> None:
    assert comparison_tables(results, ["kl"], Evidence()) == []
    assert comparison_tables(results, ["kl"], Evidence(frame())) == []
    assert pareto_tables(results, ["kl"], Evidence()) == []


@pytest.mark.parametrize(
    ("verdict", "bits", "reference_bits", "sides"),
    [
        ("worse", 4.5, 4.25, ("run_ids",)),
        ("worse", 4.25, 4.25, ("run_ids",)),
        ("worse", 4.25, 4.5, ()),
        ("better", 4.25, 4.5, ("reference_run_ids",)),
        ("better", 4.5, 4.25, ()),
        ("equivalent", 4.5, 4.25, ("run_ids",)),
        ("equivalent", 4.25, 4.25, ()),
        ("undecided", 4.5, 4.25, ()),
        ("not comparable", 4.5, 4.25, ()),
        ("worse", None, 4.25, ()),
    ],
)
def test_a_recipe_is_behind_only_where_that_is_shown(
    verdict: str, bits: float | None, reference_bits: float, sides: tuple[str, ...]
) -> None:
    assert behind(comparison(verdict=verdict, bits=bits, reference_bits=reference_bits)) == sides


def test_bits_against_loss_marks_the_front(results: pd.DataFrame) -> None:
    results.loc[results.quantizer == "rtn", "effective_bits"] = 3.5
    bits = {"bits": 3.25, "reference_bits": 3.5, "same_bits": False}
    rows = [
        comparison(**WIKI, **AGAINST_RTN, **bits, verdict="better"),
        undecided(**{**WIKI, "task": "news", "distribution": "news", "protocol": "b" * 64}, **AGAINST_RTN, **bits),
    ]
    (table,) = pareto_tables(results, ["perplexity", "kl"], Evidence(frame(*rows)))
    assert table.slug == "bits-kl-smollm2-smoke"
    marks = {row[0].value + " " + row[1].value: [cell.marks for cell in row[-3:]] for row in table.rows}
    assert list(marks)[-1] == f"rtn {DATA_FREE}"
    assert [mark.strip()[0] for mark in marks[f"rtn {DATA_FREE}"]] == ["●", "●", "○"]
    assert [mark.strip()[0] for mark in marks["gptq wiki"]] == ["●", "●", "●"]
    assert any(note.endswith("behind gptq calibrated on wiki") for note in table.notes)
    assert table.closing[-1] == (
        "On wiki, on the front: gptq calibrated on news (3.25 bits) and gptq calibrated on wiki (3.25 bits)."
    )


def test_they_are_written_beside_the_tables_of_recipes(stored: tuple[Store, pd.DataFrame]) -> None:
    store, results = stored
    found = Evidence(frame(comparison(**WIKI, **AGAINST_RTN)))
    printed = write_tables(store, "demo", results, ["kl"], evidence=found)
    assert [table.slug for table in printed] == ["kl-smollm2-smoke"]
    folder = store.sweep_dir("demo") / "tables"
    assert "| gptq   | rtn" in (folder / "recipes-kl-smollm2-smoke.md").read_text(encoding="utf-8")
    assert "recipes-kl-smollm2-smoke.tex" in (folder / "tables.tex").read_text(encoding="utf-8")
