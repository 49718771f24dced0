"""The report: what its charts show, what the page holds, and that it is made of stored results."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from drawn_sweep import Grid
from made_content import content
from quantbench.cli.commands import collate
from quantbench.cli.reporting import report
from quantbench.core.errors import ConfigError
from quantbench.report.axes import AXES
from quantbench.report.page import drawing, write
from quantbench.report.page.bits import cost_chart_of, front
from quantbench.report.page.content import Content
from quantbench.report.page.curves import draw_chart, size_chart
from quantbench.report.page.drawing import formats, script_json
from quantbench.report.page.figure import DATA, Figure
from quantbench.report.page.figures import sections
from quantbench.report.page.forest import MOST, forest
from quantbench.report.page.gather import gathered
from quantbench.report.page.heat import EXCLUDED, HELD, ONE_DRAW, UNKNOWN, state
from quantbench.report.page.layers import layer_chart, place
from quantbench.report.page.losses import gap_map, loss_map
from quantbench.report.page.page import html
from quantbench.report.page.tasks import flip_chart
from quantbench.report.page.values import arm_values
from quantbench.report.page.variance import variance_chart
from quantbench.report.scored import SweepScores
from quantbench.store.store import Store


class Page(HTMLParser):
    """What of a page the tests ask for: elements with their attributes, and the text inside some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(autouse=True)
def no_javascript(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the script takes seconds; that it draws is seen in a browser."""
    monkeypatch.setattr("quantbench.report.page.page.javascript", lambda: "/* </script> <!-- */")
    monkeypatch.setattr("quantbench.report.page.page.STILL", 1)


def rows(figure: Figure | None) -> list[dict[str, Any]]:
    """What a chart draws."""
    assert figure is not None
    found: list[dict[str, Any]] = figure.spec["datasets"][DATA]
    return found


def values(made: Content) -> pd.DataFrame:
    return arm_values(made.results, made.means)


# What charts show


@pytest.mark.parametrize(
    ("low", "high", "one_draw", "told"),
    [
        (0.1, 0.2, False, EXCLUDED),
        (-0.2, -0.1, True, ONE_DRAW),
        (-0.1, 0.2, False, HELD),
        (0.0, 0.2, True, HELD),
        (math.nan, math.nan, False, UNKNOWN),
    ],
)
def test_a_cell_says_whether_its_interval_excludes_0(low: float, high: float, one_draw: bool, told: str) -> None:
    assert state(low, high, one_draw) == told


def test_a_loss_has_its_comparison_with_full_precision_and_a_divergence_its_own_interval() -> None:
    made = content()
    shown = rows(loss_map(values(made), made.comparisons, "perplexity"))
    known = made.comparisons
    known = known[(known["kind"] == "full precision") & (known["metric"] == "perplexity")]
    assert sorted(row["difference"] for row in shown) == pytest.approx(sorted(known["difference"]), rel=1e-5)
    own = [row for row in shown if row["test"] == row["calibration"]]
    assert len(own) == 6
    assert all(row["shown"].endswith("*") for row in own)
    kl = rows(loss_map(values(made), made.comparisons, "kl"))
    assert {row["state"] for row in kl} == {EXCLUDED}
    assert all(row["low"] <= row["value"] <= row["high"] for row in kl)


def test_a_failed_cell_is_in_the_heat_map() -> None:
    made = content(draws=1)
    lost = made.results["run_id"] == "gptq-wiki-0-0"
    results = made.results.assign(
        value=made.results["value"].mask(lost), status=made.results["status"].mask(lost, "failed")
    )
    known = made.comparisons[made.comparisons["run_ids"] != "gptq-wiki-0-0"]
    shown = rows(loss_map(arm_values(results, {}), known, "perplexity"))
    failed = [row for row in shown if row["shown"] == "FAILED"]
    assert [(row["row"], row["state"], row["amount"]) for row in failed] == [("gptq ← wiki", UNKNOWN, None)] * 3
    assert failed[0]["href"] == "#run-gptq-wiki-0-0"


def test_sources_of_variance_stand_side_by_side() -> None:
    common = {
        "recipe": "gptq",
        "calib_n": 8,
        "calib_length": 512,
        "task": "wiki",
        "protocol": "p",
        "distribution": "wiki",
        "settings": "bits=4",
        "environment": "cpu, threads=1",
    }
    found = {"items": (0.3, None, None), "draws": (0.1, 0.05, 0.4), "seeds": (0.0, 0.0, 0.2)}
    frame = pd.DataFrame(
        [
            common
            | {"metric": "kl", "of_logarithm": False, "source": source, "sd": sd, "sd_low": low, "sd_high": high}
            | {"share": 0.5, "levels": 3, "n_runs": 3, "n_clusters": 8}
            for source, (sd, low, high) in found.items()
        ]
    )
    figure = variance_chart(frame, "kl")
    assert {row["source"]: (row["sd"], row["sd_low"], row["sd_high"]) for row in rows(figure)} == found
    assert figure is not None
    assert {row["row"] for row in rows(figure)} == {"gptq, 8 x 512"}
    others = pd.concat([frame, frame.assign(environment="cpu, threads=4")])
    assert {row["row"] for row in rows(variance_chart(others, "kl"))} == {
        "gptq, 8 x 512, cpu, threads=1",
        "gptq, 8 x 512, cpu, threads=4",
    }
    assert "items: other test clusters; draws: another draw of the calibration text; seeds:" in figure.words[0]
    assert variance_chart(frame[frame["source"] == "items"], "kl") is None
    assert variance_chart(frame, "perplexity") is None
    assert variance_chart(pd.DataFrame(), "kl") is None


def test_one_cost_has_an_axis_with_room_around_it() -> None:
    made = content()
    arms = values(made)
    arms["modelled_decode_ms"] = 0.0796
    figure = cost_chart_of(arms, made.comparisons, "kl", AXES["modelled_decode_ms"], asked=True)
    assert figure is not None
    scales = [layer["encoding"]["x"]["scale"] for layer in figure.spec["spec"]["layer"]]
    assert all(scale["domain"] == pytest.approx([0.8 * 0.0796, 1.2 * 0.0796]) for scale in scales)


def test_a_gap_of_one_draw_is_told_from_one_over_draws() -> None:
    decided = {row["state"] for row in rows(gap_map(content(draws=1).comparisons, "kl"))}
    assert decided == {ONE_DRAW, HELD}
    assert {row["state"] for row in rows(gap_map(content(draws=3).comparisons, "kl"))} == {EXCLUDED, HELD}


def test_a_forest_of_many_shows_the_surest_and_says_what_is_left_out() -> None:
    few = content().comparisons
    made = pd.concat([few.assign(difference=few["difference"] * (1 + i)) for i in range(20)], ignore_index=True)
    figure = forest(made, "transfer gap", "kl")
    assert figure is not None
    assert len(rows(figure)) == MOST
    own = made[(made["kind"] == "transfer gap") & (made["metric"] == "kl")]
    assert any(f"Of {len(own)} comparisons" in word for word in figure.words)
    ratio = (own["difference"].abs() / (own["high"] - own["low"])).sort_values()
    least = min(abs(row["difference"]) / (row["high"] - row["low"]) for row in rows(figure))
    assert least == pytest.approx(ratio.iloc[-MOST], rel=1e-3)


def test_the_front_is_what_no_arm_beats_in_bits_and_value() -> None:
    group = pd.DataFrame({"bits": [4.0, 4.0, 3.0, 8.0, 8.0], "value": [0.5, 0.4, 0.6, 0.4, 0.1]})
    assert front(group, higher_is_better=False) == [2, 1, 4]
    assert front(group, higher_is_better=True) == [2]
    one = content(recipes=("gptq",), draws=1)
    assert cost_chart_of(values(one), one.comparisons, "kl") is None  # of equal bits


def test_draws_are_shown_one_by_one_beside_their_mean_and_only_where_there_are_several() -> None:
    made = content(draws=3)
    figure = draw_chart(made.results, values(made), "kl")
    drawn = rows(figure)
    assert len(drawn) == 2 * 3 * 3 * 3  # recipes, sets, tests, draws
    one = [row for row in drawn if (row["row"], row["test"]) == ("gptq ← code", "news")]
    assert {row["href"] for row in one} == {f"#run-gptq-code-{draw}-0" for draw in range(3)}
    assert one[0]["mean"] == pytest.approx(sum(row["value"] for row in one) / 3, rel=1e-5)
    single = content(draws=1)
    assert draw_chart(single.results, values(single), "kl") is None


def test_sizes_make_a_curve_where_they_vary() -> None:
    made = content(recipes=("gptq",), draws=1, sizes=3)
    assert {row["tokens"] for row in rows(size_chart(values(made), "kl"))} == {8192, 32768, 131072}
    assert size_chart(values(content(draws=1)), "kl") is None


def test_layers_are_told_by_block_and_kind() -> None:
    assert place("model.layers.12.self_attn.q_proj") == (12, "self_attn.q_proj")
    assert place("lm_head") == (-1, "lm_head")
    shown = rows(layer_chart(content().layers))
    assert {(row["block"], row["layer"]) for row in shown} >= {(0, "attn.q"), (5, "mlp.down")}
    assert layer_chart(content().layers.assign(relative_loss=math.nan)) is None


def test_answers_that_changed_lie_on_both_sides_of_0() -> None:
    few = content(recipes=("gptq",), draws=1).results
    made = few[few["metric"] == "acc"].assign(value=0.25)
    both = pd.concat([made.assign(metric="flips_wrong"), made.assign(metric="flips_right", value=0.1)])
    shown = rows(flip_chart(arm_values(both, {})))
    assert {(row["flip"], row["share"], row["signed"]) for row in shown} == {
        ("right to wrong", 0.25, 0.25),
        ("wrong to right", 0.1, -0.1),
    }
    assert flip_chart(arm_values(few, {})) is None


def test_equal_names_of_figures_in_two_studies_are_told_apart() -> None:
    made = content(recipes=("gptq",), draws=1)
    other = made.results.assign(scale="paper")
    both = Content(**{**vars(made), "results": pd.concat([made.results, other], ignore_index=True)})
    slugs = [figure.slug for section in sections(both) for figure in section.figures]
    assert len(slugs) == len(set(slugs))
    assert any("paper" in slug for slug in slugs)


# The page


@pytest.fixture(scope="module")
def page() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantbench.report.page.page.javascript", lambda: "/* </script> <!-- */")
        patch.setattr("quantbench.report.page.page.STILL", 1)
        made = content(recipes=("rtn", "gptq"), draws=1)
        hostile = Content(**{**vars(made), "sentences": ["<script>alert(1)</script>"]})
        return html(hostile, sections(hostile))


def test_the_page_asks_for_nothing_and_runs_no_foreign_script(page: str) -> None:
    read = Page(page)
    assert "<script>alert(1)" not in page
    loaded = [a.get("src") or a.get("href") for tag in ("script", "img", "link", "iframe") for a in read.of(tag)]
    assert all(one is None or one.startswith("data:") for one in loaded)
    policies = [a["content"] for a in read.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policies[0]).startswith("default-src 'none'")
    assert not re.findall(r"url\((?!data:)", page)
    assert len(read.of("script")) == 3  # data, runtime, ours: a text inside them ends none


def test_every_link_leads_somewhere_and_every_mark_to_its_run(page: str) -> None:
    read = Page(page)
    ids = read.ids()
    assert len(ids) == len(set(ids))
    links = {str(a["href"]) for a in read.of("a")}
    assert {link.removeprefix("#") for link in links} <= set(ids)
    contents = json.loads(read.scripts[0])
    marks = {href for one in contents.values() for href in one["table"]["href"]["levels"]}
    assert {mark.removeprefix("#") for mark in marks} <= set(ids)
    assert "python -m quantbench quantizer=gptq" in page


def test_each_chart_has_words_a_table_and_its_data(page: str) -> None:
    read = Page(page)
    contents = json.loads(read.scripts[0])
    n = len(contents)
    assert n == len(read.of("figure")) == len(read.of("figcaption")) == len(read.of("table")) == len(read.of("caption"))
    assert all(a["alt"] for a in read.of("img"))
    assert {a["data-copy"] for a in read.of("button") if "data-copy" in a} == set(contents)
    for one in contents.values():
        assert set(one["columns"]) <= one["table"].keys()
    assert read.of("html") == [{"lang": "en"}]
    assert len(read.of("main")) == len(read.of("nav")) == len(read.of("h1")) == 1


def test_what_stands_in_a_script_cannot_end_it() -> None:
    text = script_json({"a": "</script><!--\u2028", "b": 1.5})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--\u2028", "b": 1.5}


# From the store


def drawn(store: Store, **fields: Any) -> Grid:
    """rtn, and gptq on two texts with two draws each."""
    grid = Grid(store)
    grid.add("rtn", "rtn", 0.3, None)
    for calib in ("wiki", "news"):
        for draw in range(2):
            grid.add(f"gptq-{calib}-{draw}", "gptq", 0.2 if calib == "wiki" else 0.25, calib, draw, **fields)
    return grid


def test_a_report_is_made_of_a_stored_sweep(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(store).manifest()
    assert report(["demo", f"--output-dir={store.root}", "--margin", "kl=1"]) == 0
    path = store.sweep_dir("demo") / "report.html"
    assert capsys.readouterr().out == f"{path}\n"
    text = path.read_text(encoding="utf-8")
    assert "gptq" in text
    assert "equivalent" in text
    assert {f"run-gptq-wiki-{draw}" for draw in range(2)} <= set(Page(text).ids())
    assert "Sources of variance" in text


def test_collating_with_a_margin_says_what_is_equivalent(store: Store) -> None:
    drawn(store).manifest()
    verdicts = []
    for margin in ([], ["--margin", "kl=1"]):
        assert collate(["demo", f"--output-dir={store.root}", *margin]) == 0
        verdicts.append(set(pd.read_csv(store.sweep_dir("demo") / "comparisons.csv")["verdict"]))
    assert "equivalent" in verdicts[1] - verdicts[0]
    with pytest.raises(ConfigError, match=r"--margin kl: give METRIC=NUMBER"):
        collate(["demo", f"--output-dir={store.root}", "--margin", "kl"])


def test_the_interval_of_an_arm_is_over_its_draws_and_clusters(store: Store) -> None:
    manifest = drawn(store).manifest()
    made = gathered([SweepScores(store, manifest)])
    arms = arm_values(made.results, made.means)
    one = arms[(arms["calibration"] == "wiki") & (arms["task"] == "news") & (arms["metric"] == "kl")].iloc[0]
    assert one["draws"] == 2
    assert one["low"] < one["value"] < one["high"]
    single = made.results[(made.results["run_id"] == "gptq-wiki-0") & (made.results["task"] == "news")]
    width = (single["value_high"] - single["value_low"])[single["metric"] == "kl"].iloc[0]
    assert one["high"] - one["low"] > width / math.sqrt(2)


def test_a_page_that_cannot_be_made_leaves_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = SweepScores(store, drawn(store).manifest())

    def broken(*_: object) -> str:
        raise RuntimeError("no drawing today")

    monkeypatch.setattr(write, "html", broken)
    made = gathered([SweepScores(store, scores.manifest)])
    assert write.try_report(scores, made.results, made.comparisons, made.variances) is None
    assert "quantbench report demo" in caplog.text
    assert not (store.sweep_dir("demo") / "report.html").exists()


def test_a_page_is_drawn_again_only_if_it_would_be_another_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = SweepScores(store, drawn(store).manifest())
    made = gathered([scores])
    path = store.sweep_dir("demo") / "report.html"
    drawings: list[str] = []

    def counted(*given: Any) -> str:
        drawings.append("one")
        return html(*given)

    monkeypatch.setattr(write, "html", counted)

    def after(results: pd.DataFrame) -> int:
        assert write.try_report(scores, results, made.comparisons, made.variances) == path
        return len(drawings)

    assert after(made.results) == 1
    whole = path.read_bytes()
    assert after(made.results) == 1
    assert path.read_bytes() == whole
    assert report(["demo", f"--output-dir={store.root}"]) == 0  # asked for by name it is drawn
    assert (len(drawings), path.read_bytes()) == (2, whole)
    path.write_bytes(whole[:-1000])
    assert after(made.results) == 3
    assert path.read_bytes() == whole
    higher = made.results.assign(value=made.results["value"] + 1e-9)
    assert after(higher) == 4
    assert path.read_bytes() != whole
    path.unlink()
    assert after(higher) == 5
    monkeypatch.setattr(write, "code_sha256", lambda _folder: "that of a later version")
    assert after(higher) == 6


def test_a_sweep_of_which_nothing_has_run_has_a_page(store: Store) -> None:
    grid = Grid(store)
    grid.add("gptq-wiki", "gptq", 0.2, "wiki", scored=False)
    manifest = grid.manifest()
    made = gathered([SweepScores(store, manifest)])
    text = html(made, sections(made))
    assert "No comparison can be made yet" in text


# Figures as files


def test_equal_charts_are_equal_drawings() -> None:
    figure = gap_map(content().comparisons, "kl")
    assert figure is not None
    assert drawing.svg(figure.spec) == drawing.svg(figure.spec)


def test_figures_are_written_in_each_format_with_their_data(tmp_path: Path) -> None:
    made = content(draws=1)
    figure = gap_map(made.comparisons, "kl")
    assert figure is not None
    paths = drawing.write_figures(tmp_path / "figures", [figure], ["svg", "pdf", "png"])
    assert [path.name for path in paths] == ["kl-gaps.svg", "kl-gaps.pdf", "kl-gaps.png", "kl-gaps.csv"]
    starts = {path.suffix: path.read_bytes()[:4] for path in paths}
    assert (starts[".svg"], starts[".pdf"], starts[".png"]) == (b"<svg", b"%PDF", b"\x89PNG")
    assert len(pd.read_csv(paths[3])) == len(figure.data)


@pytest.mark.parametrize("text", ["", "jpg", "svg,gif"])
def test_an_unknown_format_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be some of svg,png,pdf"):
        formats(text)


@pytest.mark.parametrize("margins", [["kl"], ["kl=small"]])
def test_a_margin_that_is_no_number_is_refused(store: Store, margins: Sequence[str]) -> None:
    drawn(store).manifest()
    given = [text for margin in margins for text in ("--margin", margin)]
    with pytest.raises(ConfigError, match="METRIC=NUMBER"):
        report(["demo", f"--output-dir={store.root}", *given])
