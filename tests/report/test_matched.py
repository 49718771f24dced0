"""How often a text's own calibration set is best, and how often that would happen by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from made_up_arms import Lab, origin, text
from quantbench.report.comparisons import compared
from quantbench.report.matched import MATCHED_COLUMNS, matched_is_best, sentence

TEXTS = ("code", "news", "wiki")


def lab(losses: dict[tuple[str, str], float], n_draws: int = 3) -> Lab:
    """One recipe with these losses by (calibration set, test text); draws and windows vary by some hundredths."""
    made, rng = Lab(), np.random.default_rng(0)
    for (calib, task), loss in losses.items():
        for draw in range(n_draws):
            made.add("gptq", calib, draw, task, text(loss + 0.01 * rng.normal() + 0.05 * rng.normal(size=48)))
    return made


def test_wins_are_counted_beside_chance_and_only_those_that_are_shown_count_as_such() -> None:
    losses = {(calib, task): 0.5 for calib in TEXTS for task in TEXTS}
    losses |= {("wiki", "wiki"): 0.1, ("news", "news"): 0.497, ("code", "code"): 0.6}
    frame = matched_is_best(compared([lab(losses).sweep]))
    assert list(frame.columns) == list(MATCHED_COLUMNS)
    (row,) = frame.to_dict("records")
    assert (row["n_texts"], row["chance"], row["n_draws"], row["n_shown"]) == (3, pytest.approx(1), 3, 1)
    assert row["n_best"] in (1, 2)
    assert sentence(row) == (
        f"gptq, kl: the text's own calibration set is best on {row['n_best']} of 3 test texts; "
        "chance alone would give 1. That is shown for 1, with p values adjusted (3 draws a set)."
    )


def test_one_draw_shows_nothing_and_controls_and_mixtures_are_no_rivals() -> None:
    losses = {("wiki", "wiki"): 0.1, ("news", "wiki"): 0.5, ("random", "wiki"): 0.05}
    made = lab(losses, n_draws=1)
    cells = made.manifest.cells
    for cell in cells:
        if cell.choice("calib") == "random":
            control = [origin("random").__class__(name="random", family="control")]
            made._cells[cell.key] = dataclasses.replace(cell, calib_origins=control)
    (row,) = matched_is_best(compared([made.sweep])).to_dict("records")
    assert (row["n_texts"], row["n_best"], row["n_shown"], row["chance"]) == (1, 1, 0, 0.5)
    assert "none of them" in sentence(row)


def test_a_text_with_one_set_has_nothing_to_be_best_of() -> None:
    assert len(matched_is_best(compared([lab({("wiki", "wiki"): 0.1}).sweep]))) == 0
