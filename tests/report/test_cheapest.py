"""Cost against loss: what is on the front, what is grey, and which recipe a bound leaves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from drawn_sweep import Grid
from quantbench.core.errors import ConfigError
from quantbench.report.axes import AXES, BITS, axis_of
from quantbench.report.cheapest import Bound, cheapest
from quantbench.report.decide import decided
from quantbench.report.page.content import Content
from quantbench.report.page.gather import gathered
from quantbench.report.scored import SweepScores
from quantbench.store.store import Store

TESTS = {"wiki": "wiki", "news": "news"}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[SweepScores]:
    """Round to nearest in 8, 4 and 3 bits, GPTQ in 4 and 3: the fewer bits the worse, GPTQ better in 3 bits."""
    store = Store(tmp_path_factory.mktemp("front"))
    grid = Grid(store)
    for bits, loss in ((8, 0.01), (4, 0.1), (3, 0.9)):
        grid.add(f"rtn-{bits}", f"rtn{bits}", loss, None, bits=bits)
    for bits, loss in ((4, 0.1), (3, 0.3)):
        for draw in range(3):
            grid.add(f"gptq-{bits}-{draw}", f"gptq{bits}", loss, "wiki", draw=draw, bits=bits)
    return [SweepScores(store, grid.manifest())]


@pytest.fixture(scope="module")
def content(sweeps: list[SweepScores]) -> Content:
    return gathered(sweeps)


def sentence(sweeps: list[SweepScores], content: Content, bound: float, on: tuple[str, ...] = ()) -> str:
    (said,) = decided(sweeps, content, BITS, "kl", on, bound).sentences
    return said


def test_the_cheapest_recipe_within_the_bound_is_named_with_its_worst_interval(
    sweeps: list[SweepScores], content: Content
) -> None:
    said = sentence(sweeps, content, 0.1)
    assert said.startswith(
        "The cheapest recipe with kl below 0.1 on news and wiki, the 95 % interval included, is gptq3 "
    )
    assert said.endswith("at 3.25 bits per quantized weight.")
    tighter = sentence(sweeps, content, 0.05, ("news",))
    assert "on news," in tighter
    assert tighter.startswith("The cheapest recipes, at equal cost, with kl below 0.05 on news, ")
    assert " are gptq4 calibrated on wiki (" in tighter
    assert " and rtn4 (" in tighter
    assert tighter.endswith("at 4.25 bits per quantized weight.")


def test_an_interval_that_reaches_over_the_bound_is_not_below_it(sweeps: list[SweepScores], content: Content) -> None:
    values = content.results[(content.results["metric"] == "kl") & (content.results["run_id"] == "rtn-4")]
    value, high = (float(values[name].max()) for name in ("value", "value_high"))
    assert high > value
    assert "rtn4" in sentence(sweeps, content, high + 1e-9)
    between = sentence(sweeps, content, (value + high) / 2, ("wiki", "news"))
    assert "rtn4" not in between


def test_none_is_said_with_the_nearest(sweeps: list[SweepScores], content: Content) -> None:
    said = sentence(sweeps, content, 0.0001)
    assert said.startswith("None: no recipe is shown to have kl below 0.0001 on news and wiki with its 95 % interval.")
    assert "The nearest is rtn8: " in said


def arms(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    """Rows of `arm_values`: recipe, bits, value and the upper end of its interval, on both tests."""
    return pd.DataFrame(
        [
            {
                "recipe": recipe,
                "calibration": "wiki",
                "bits": bits,
                "value": value,
                "low": 2 * value - high,
                "high": high,
                "task": task,
                "metric": "kl",
                "full_precision": False,
                "data_free": False,
                "draws": 1,
            }
            for recipe, bits, value, high in rows
            for task in TESTS
        ]
    )


def test_what_has_no_interval_is_not_chosen_and_one_draw_is_said() -> None:
    values = arms(("cheap", 2.0, 0.01, float("nan")), ("dear", 4.0, 0.01, 0.02))
    said = cheapest(values, TESTS, Bound("kl", 0.1, False))
    assert " is dear calibrated on wiki (0.0100 on wiki, at most 0.0200), at 4 bits" in said
    left = " Left out, for want of an interval on each test or of a cost: 1 of "
    assert said.endswith(f"The intervals are over test items: another calibration draw may differ.{left}2.")
    lost = cheapest(values[values["recipe"] == "cheap"], TESTS, Bound("kl", 0.1, False))
    assert lost.endswith(f"with its 95 % interval.{left}1.")
    free = cheapest(
        values.assign(bits=values["bits"].where(values["recipe"] != "dear")), TESTS, Bound("kl", 0.1, False)
    )
    assert free.startswith("None: ")
    half = cheapest(values[values["task"] == "wiki"], TESTS, Bound("kl", 0.1, False))
    assert half.startswith("None: ")


def test_where_higher_is_better_the_lower_end_must_lie_above() -> None:
    values = arms(("cheap", 2.0, 0.50, 0.53), ("dear", 4.0, 0.60, 0.65)).assign(metric="accuracy")
    assert " is dear " in cheapest(values, TESTS, Bound("accuracy", 0.54, True))
    assert " is cheap " in cheapest(values, TESTS, Bound("accuracy", 0.46, True))
    assert cheapest(values, TESTS, Bound("accuracy", 0.56, True)).startswith("None: ")


def test_comparisons_grey_a_recipe_and_the_table_says_what_it_is_behind(
    sweeps: list[SweepScores], content: Content
) -> None:
    found = decided(sweeps, content, BITS, "kl")
    (figure,), (table,) = found.figures, found.tables
    grey = figure.data[figure.data["behind"]]
    assert "rtn3" in set(grey["recipe"])  # GPTQ is better at the same bits
    assert not {"rtn8", "gptq3"} & set(grey["recipe"])
    assert any("behind gptq3" in note for note in table.notes)
    assert set(figure.data["test"]) == {"wiki", "news"}
    assert table.header == ["recipe", "calibration", "bits", "bits, whole model", "news", "wiki"]
    assert found.figures_named("front")[0].slug == "front"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "klx"}, "--y metric=klx: no such choice. Did you mean 'kl'"),
        ({"on": ["wikii"]}, "--on test=wikii: no such choice. Did you mean 'wiki'"),
        ({"metric": "kl", "bound": 0.1, "above": True}, "--above 0.1: of kl, lower is better; give --below 0.1"),
        ({"metric": "top1_agreement", "bound": 0.1}, "--below 0.1: of top1_agreement, higher is better; give --above"),
        ({"metric": "kl", "bound": float("nan")}, "--below nan: expected a finite number, in the unit of kl"),
    ],
)
def test_what_is_not_there_is_refused(
    sweeps: list[SweepScores], content: Content, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decided(sweeps, content, BITS, **given)  # type: ignore[arg-type]


def test_an_axis_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x=bit: no such choice\. Did you mean 'bits'"):
        axis_of("bit")
    assert {axis.name for axis in AXES.values() if axis.needs_hardware} == {"modelled_decode_ms", "modelled_prefill_ms"}


def test_what_is_stored_is_not_touched(sweeps: list[SweepScores], content: Content) -> None:
    root: Path = sweeps[0].store.root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    decided(sweeps, content, BITS, "kl", (), 0.1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
