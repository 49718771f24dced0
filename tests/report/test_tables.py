"""Tables as a reader sees them."""

from __future__ import annotations

import dataclasses
import io
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from comparison_rows import against_full, gap
from comparison_rows import frame as frame_of
from quantbench.core.errors import StoreError
from quantbench.core.paths import short_names
from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.overview import recipe_table
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.evidence import DrawMean, Evidence
from quantbench.report.html_table import html_table
from quantbench.report.legend import legend
from quantbench.report.render import console, csv_table, markdown
from quantbench.report.tables import HEADS, tables
from quantbench.report.writing import write_tables
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store
from stored_sweep import origin

Build = Callable[..., tuple[Store, Manifest]]
Record = Callable[..., RunRecord]
Scored = Callable[..., Score]
Items = Callable[..., pd.DataFrame]
MakeCell = Callable[..., CellEntry]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (24.3127, 0.058, "24.313±0.058"),
        (24.3127, 1.7, "24.3±1.7"),
        (24.3127, 17.0, "24±17"),
        (1234.5, 213.0, "1230±210"),
        (0.02132, 0.00084, "0.02132±0.00084"),
        (24.3127, 0.0996, "24.31±0.10"),
        (24.3127, 0.0, "24.31"),
        (24.3127, None, "24.31"),
        (0.0, None, "0"),
        (0.0, 0.0, "0"),
        (1.0, 0.0, "1.000"),
        (1.23456e-5, 2.1e-7, "1.23e-05±2.1e-07"),
        (2.5e6, 3.2e5, "2.5e+06±320000"),
        (-0.0001, 0.012, "0.000±0.012"),
    ],
)
def test_a_number_has_the_digits_its_error_allows(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


def test_changes_have_a_sign() -> None:
    assert rounded(0.85, 0.058, signed=True) == "+0.850"
    assert rounded(-0.85, 0.058, signed=True) == "-0.850"
    assert rounded(0.0, None, signed=True) == "+0"
    assert change(0.0, None) == "same"
    assert change(-0.85, 0.058) == "-0.850±0.058"
    assert change(0.0, 0.058) == "+0.000±0.058"


def test_where_no_item_differs_no_error_of_zero_is_claimed(build_sweep: Build, tmp_path: Path) -> None:
    assert change(0.0, 0.0) == "same"
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    (before,) = tables(frame, "perplexity")
    equal = (frame.quantizer == "gptq") & (frame.task == "wiki") & (frame.metric == "perplexity")
    frame.loc[equal, ["difference", "difference_stderr"]] = 0.0
    (after,) = tables(frame, "perplexity")
    assert not any("same: no item" in line for line in before.caption)
    assert any(line.endswith("same: no item has another outcome.") for line in after.caption)
    assert "same" in {cell.change for row in after.rows for cell in row}


def test_the_table_in_a_terminal(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    (table,) = tables(collate(store, [manifest]), "perplexity")
    assert console(table, width=100) == textwrap.dedent(
        """\
        perplexity (per token; lower is better): smollm2, smoke

        Model smollm2, scale smoke. Tests: n = 8 windows (4,088 tokens, 8 clusters) per column. Calibration:
          16,384 tokens, 1 draw. 3.25 bits per weight.

                                                                         vs news-
        recipe            calibration        bits  news                  calibrated    reviews
        ----------------  -----------------  ----  --------------------  ------------  -----------------
        (full precision)                     16    29.1±1.2                            46.5±2.5
        gptq              news               3.25  30.8 +1.676±0.085*†§  own           49.9  +3.37±0.17†
        gptq              reviews            3.25  FAILED[1]                           FAILED[1]
        gptq              wiki               3.25  31.8   +2.74±0.14     +1.064±0.054  50.9  +4.38±0.23
        rtn               (none: data-free)  3.25  37.4   +8.26±0.46                   59.7 +13.21±0.74

                                                                  vs wiki-
        recipe            calibration        wiki                 calibrated
        ----------------  -----------------  -------------------  --------------
        (full precision)                     18.3±1.7
        gptq              news               19.6 +1.325±0.068†   -0.0392±0.0019
        gptq              reviews            FAILED[1]
        gptq              wiki               19.6 +1.364±0.070*§  own
        rtn               (none: data-free)  23.5   +5.19±0.29

        gptq: weight=Int(bits=3, group_size=64).
        rtn: weight=Int(bits=3, group_size=64).
        Cells: value, then its difference from full precision ± standard error over clusters of windows,
          paired; over several draws their mean, ± over draws and clusters. Where no difference is shown, ±
          is the standard error of the value.
        * = calibrated on the test distribution (in-distribution).
        Transfer gap (vs news-calibrated, vs wiki-calibrated): what is lost on the test text of the column
          before by not calibrating on it: the difference from the same recipe calibrated on it, ± standard
          error; positive is a loss.
        [1] failed: ModelError: layer 3 is not finite
        † gave way while quantizing: news: damping_raised=2
        § more than 1 % of the items have 13 tokens in a row in common with the calibration text (a stock
          phrase, a notice; longer passages are refused), so they may be easier than others; at most 12.5 %,
          news on news (column overlap_13gram)
        """
    )
    assert max(len(line) for line in console(table).splitlines()) <= 120


def test_prompts_and_answers_that_were_cut_are_counted_and_marked(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    scored = ("rtn", "wiki", "a" * 64)
    score = store.load_score(*scored)
    assert score is not None
    items = store.load_items(*scored)
    store.score_path(*scored).unlink()
    store.save_score(dataclasses.replace(score, cut_prompts=8, cut_answers=3), items)
    frame = collate(store, [manifest])
    found = frame[(frame["run_id"] == "rtn") & (frame["metric"] == "kl")]
    counts = found[["task", "cut_prompts", "cut_answers"]].fillna(-1).values.tolist()
    assert counts == [["news", -1, -1], ["reviews", -1, -1], ["wiki", 8, 3]]
    (table,) = tables(frame, "kl")
    assert [row[table.header.index("wiki")].marks for row in table.rows] == ["†", "[1]", "§", "✂"]
    told = "✂ wiki: cut because they are longer than what is read or generated: up to 8 prompts of 8, 3 answers of 8"
    assert told in table.notes
    assert told in recipe_table(store, [manifest], ["kl"]).notes


def test_a_divergence_shows_its_own_error(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    (table,) = tables(collate(store, [manifest]), "kl")
    values = {(row[0].value, row[1].value): [cell.value for cell in row[2:]] for row in table.rows}
    assert values["rtn", "(none: data-free)"] == ["3.25", *["0.0625±0.0031", ""], "0.0625±0.0031", "0.0625±0.0031", ""]
    assert values["gptq", "news"][1:3] == ["0.01750±0.00087", "own"]


def test_all_recipes_stand_in_one_table_and_a_gap_beside_the_text_it_is_lost_on(
    build_sweep: Build, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    (table,) = tables(collate(store, [manifest]), "kl")
    assert table.header == [
        *["recipe", "calibration", "bits", "news", "vs news-calibrated", "reviews", "wiki", "vs wiki-calibrated"]
    ]
    gaps = {row[1].value: (row[4].value, row[7].value) for row in table.rows if row[0].value == "gptq"}
    assert gaps == {"news": ("own", "-0.00500±0.00025"), "reviews": ("", ""), "wiki": ("+0.00500±0.00025", "own")}
    assert [len(group) for group in table.groups()] == [3, 1]


def test_markdown_and_csv_say_the_same(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    (table,) = tables(collate(store, [manifest]), "perplexity")
    lines = markdown(table).splitlines()
    assert lines[0] == "### perplexity (per token; lower is better): smollm2, smoke"
    assert lines[2].startswith(
        "Model smollm2, scale smoke. Tests: n = 8 windows (4,088 tokens, 8 clusters) per column. "
    )
    assert [cell.strip() for cell in lines[7].strip("|").split("|")] == [
        *["gptq", "news", "3.25"],
        "**30.8 +1.676±0.085**†§",
        "own",
        "49.9 +3.37±0.17†",
        "19.6 +1.325±0.068†",
        "-0.0392±0.0019",
    ]
    assert "- **bold** = calibrated on the test distribution (in-distribution)." in lines
    text = csv_table(table)
    assert text.startswith("# perplexity (per token; lower is better): smollm2, smoke\n# Model smollm2, scale smoke.\n")
    rows = pd.read_csv(io.StringIO(text), comment="#")
    assert list(rows.columns) == table.header
    assert rows[["news", "reviews"]].iloc[1].tolist() == ["30.8 +1.676±0.085*†§", "49.9 +3.37±0.17†"]


def test_tables_are_written_in_every_format_and_every_table_is_in_the_combined_files(
    build_sweep: Build, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    made = write_tables(store, "demo", collate(store, [manifest]), legend=["a = /x|y.txt"])
    assert [table.slug for table in made] == ["perplexity-smollm2-smoke", "kl-smollm2-smoke"]
    folder = store.sweep_dir("demo") / "tables"
    expected = {f"{table.slug}.{kind}" for table in made for kind in ("md", "csv", "tex", "html")}
    assert {path.name for path in folder.iterdir()} == expected | {"tables.md", "tables.tex", "tables.html"}
    combined = (folder / "tables.md").read_text(encoding="utf-8")
    assert combined.startswith("# demo\n")
    assert combined.endswith("\n- a = /x\\|y.txt\n")
    page = (folder / "tables.html").read_text(encoding="utf-8")
    paper = (folder / "tables.tex").read_text(encoding="utf-8")
    for table in made:
        assert (folder / f"{table.slug}.md").read_text(encoding="utf-8") in combined
        assert html_table(table) in page
        assert f"\\input{{{table.slug}.tex}}" in paper


def test_a_sweep_in_which_everything_failed_still_has_a_table(store: Store, make_cell: MakeCell) -> None:
    cells = [make_cell(calib, "gptq", None, status="failed", error="E: no\nluck") for calib in ("wiki", "news")]
    made = write_tables(store, "demo", collate(store, [Manifest(name="demo", overrides=[], cells=cells)]))
    assert len(made) == 1
    text = console(made[0])
    assert "FAILED[2]" in text
    assert "[2] failed: E: no luck" in text
    assert "[1] – = done, but no such score is stored" in text


def test_pending_cells_and_lone_values_are_explained(
    store: Store, make_cell: MakeCell, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    items = make_items(n=1)
    store.save_run(make_record("r"))
    store.save_score(make_score("r", items), items)
    cells = [
        make_cell("wiki", "gptq", "r", baseline_run_id=None, tasks={"wiki": "a" * 64}),
        make_cell("news", "gptq", None, baseline_run_id=None, tasks={"wiki": None}, status="pending"),
    ]
    (table,) = tables(collate(store, [Manifest(name="demo", overrides=[], cells=cells)]), "perplexity")
    text = console(table)
    assert "n = 1 windows" in text
    assert "[1] – = not run yet" in text
    assert "[2] no difference: the manifest names no full-precision run for this cell" in text
    shown = [[cell.value for cell in row] for row in table.rows]
    assert [row[:2] for row in shown] == [["gptq", "news"], ["gptq", "wiki"]]
    assert shown[1][-1] == rounded(items["nll"].map(pow_e).iloc[0], None)


def pow_e(value: float) -> float:
    return float(2.718281828459045**value)


def test_budgets_that_differ_get_a_column_and_draws_one_line_with_their_mean(
    store: Store, make_cell: MakeCell, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    cells = []
    for n, draw, tokens in ((32, 0, 16384), (32, 1, 16384), (32, 2, 16384), (4, 0, 2048)):
        run_id = f"n{n}d{draw}"
        overrides = [f"calib.draw={draw}", f"calib.n={n}"]
        scored = {"key": run_id, "tasks": {"wiki": "a" * 64}, "overrides": overrides}
        if draw == 2:
            cells.append(make_cell("wiki", "gptq", None, status="failed", error="E: no luck", **scored))
            continue
        items = make_items("wiki", 0.1 + draw / 10, kl=0.1 + draw / 10)
        calibration = {"n_tokens": tokens, "seed": 42, "draw": draw}
        store.save_run(make_record(run_id, calibration=calibration, effective_bits=3.0 + n / 32))
        store.save_score(make_score(run_id, items), items)
        cells.append(make_cell("wiki", "gptq", run_id, **scored))
    frame = collate(store, [Manifest(name="demo", overrides=[], cells=cells)])
    key = ("wiki", "a" * 64, "kl", frozenset({"n32d0", "n32d1"}))
    (table,) = tables(frame, "kl", Evidence(means={key: DrawMean(0.15, 0.02)}))
    assert table.header == ["recipe", "calibration", "bits", "tokens", "draws", "wiki"]
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["gptq", "wiki n=4", "3.125", "2,048", "1", "0.1000±0.0049"],
        ["gptq", "wiki n=32", "4", "16,384", "3", "0.150±0.020"],
    ]
    assert "[1] mean of 2 of 3 draws: one failed: E: no luck" in table.notes
    assert table.opening == [
        "Model smollm2, scale smoke.",
        "Tests: n = 8 windows (4,088 tokens, 8 clusters) per column.",
        "Calibration: 2,048 to 16,384 tokens, 1 to 3 draws.",
        "The recipes store 3.125 to 4 bits per weight: they are compared at different effective bits.",
    ]
    (without,) = tables(frame, "kl")
    assert without.rows[1][-1].value == "0.1500"
    assert any("no error over draws" in note for note in without.notes)


def test_recipes_tested_under_another_protocol_have_a_table_of_their_own(
    store: Store, make_cell: MakeCell, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    cells = []
    for quantizer, protocol in (("gptq", "a" * 64), ("awq", "d" * 64), ("hqq", "a" * 64)):
        items = make_items()
        store.save_run(make_record(quantizer))
        store.save_score(make_score(quantizer, items, protocol=protocol), items)
        cells.append(make_cell("wiki", quantizer, quantizer, tasks={"wiki": protocol}))
    made = tables(collate(store, [Manifest(name="demo", overrides=[], cells=cells)]), "perplexity")
    assert [table.slug for table in made] == ["perplexity-smollm2-smoke", "perplexity-smollm2-smoke-2"]
    recipes = [[row[0].value for row in table.rows] for table in made]
    assert recipes == [["(full precision)", "awq"], ["(full precision)", "gptq", "hqq"]]


def test_two_protocols_never_share_a_column(
    store: Store, make_cell: MakeCell, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    cells = []
    for calib, protocol in (("wiki", "a" * 64), ("news", "d" * 64)):
        items = make_items()
        store.save_run(make_record(calib))
        store.save_score(make_score(calib, items, protocol=protocol), items)
        cells.append(make_cell(calib, "gptq", calib, tasks={"wiki": protocol}))
    frame = collate(store, [Manifest(name="demo", overrides=[], cells=cells)])
    with pytest.raises(StoreError, match=r"task wiki: scores of protocol d+ and of protocol a+ in one table"):
        tables(frame, "perplexity")


def test_few_clusters_are_marked(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    frame.loc[frame.task == "wiki", "n_clusters"] = 5
    (table,) = tables(frame, "kl")
    (note,) = [line for line in table.notes if line.endswith("± is not reliable: fewer than 8 clusters of items")]
    mark = note.partition(" ")[0]
    marked = {
        (row[1].value, name)
        for row in table.rows
        for name, cell in zip(table.header, row, strict=True)
        if mark in cell.marks
    }
    assert marked == {("wiki", "wiki"), ("news", "wiki"), (DATA_FREE, "wiki"), ("news", "vs wiki-calibrated")}


def test_columns_that_do_not_fit_go_below(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    gptq = tables(collate(store, [manifest]), "perplexity")[0]
    text = console(gptq, width=60)
    assert max(len(line) for line in text.splitlines()) <= 60
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("recipe ")] == [HEADS] * 6
    assert text.count("(full precision)") == 6


def test_a_frame_from_parquet_gives_the_same_tables(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    frame.to_parquet(tmp_path / "results.parquet")
    assert tables(pd.read_parquet(tmp_path / "results.parquet"), "perplexity") == tables(frame, "perplexity")


def test_a_metric_nobody_measured_has_no_table(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    assert tables(collate(store, [manifest]), "acc") == []


def test_the_relation_of_each_cell_is_marked_and_explained(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    calibs = {"wiki": origin("wiki", relatives=("news",)), "news": origin("news")}
    tests = {"wiki": origin("wiki", language="de"), "news": origin("news"), "reviews": origin("reviews", family="sa")}
    cells = [
        dataclasses.replace(cell, task_origins=tests, calib_origins=[calibs.get(cell.choices["calib"], origin("x"))])
        for cell in manifest.cells
        if not cell.data_free
    ]
    (gptq,) = tables(collate(store, [dataclasses.replace(manifest, cells=cells)]), "kl")
    columns = [gptq.header.index(name) for name in ("news", "reviews", "wiki")]
    lines = {row[1].value: [row[column].marks for column in columns] for row in gptq.rows}
    assert lines["news"] == ["†§", "‡†", "‡†"]
    assert lines["wiki"] == ["≈", "‡", "§"]
    assert any(line.startswith("≈ = related: ") for line in gptq.caption)
    assert any(line.startswith("‡ = far OOD: ") for line in gptq.caption)
    assert not any(line.startswith("◐") for line in gptq.caption)


def test_a_mixture_has_a_transfer_gap_on_its_own_part_but_does_not_count_as_out_of_distribution(
    build_sweep: Build, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    mix = dataclasses.replace(manifest.cells[1], calib_origins=[origin("wiki"), origin("code", language="Python")])
    frame = collate(store, [dataclasses.replace(manifest, cells=[manifest.cells[0], mix])])
    rows = frame[(frame.metric == "kl") & (frame.calib == "news")].set_index("task")
    assert rows.relation.to_dict() == {"news": "near OOD", "reviews": "near OOD", "wiki": "mixed"}
    assert pd.isna(rows.in_distribution["wiki"])
    assert rows.transfer_gap.notna().to_dict() == {"news": False, "reviews": False, "wiki": True}
    (table,) = tables(frame, "kl")
    assert table.header[-2:] == ["wiki", "vs wiki-calibrated"]
    assert {row[1].value: row[-2].marks for row in table.rows} == {"news": "◐†", "wiki": "§"}
    assert {row[1].value: row[-1].value for row in table.rows} == {"news": "-0.00500±0.00025", "wiki": "own"}


def test_a_name_that_does_not_show_its_file_is_explained() -> None:
    paths = ["/data/日本.txt", "/data/中文.txt", "/data/plain.txt"]
    names = short_names(paths)
    origins = {names[path]: origin(names[path], path=path) for path in paths}
    cell = CellEntry(key="a", choices={}, overrides=[], tasks=dict.fromkeys(origins), task_origins=origins)
    lines = legend(Manifest(name="demo", overrides=[], cells=[cell]))
    assert lines == [f"{names[path]} = {path}" for path in sorted(paths[:2], key=lambda path: names[path])]
    pathless = dataclasses.replace(cell, tasks={"random": None}, task_origins={"random": origin("random", path="")})
    assert legend(Manifest(name="demo", overrides=[], cells=[pathless])) == []


def test_a_gap_that_waits_for_a_run_says_so(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)  # in which the run calibrated on reviews failed
    frame = collate(store, [manifest])
    waiting = tables(frame, "kl", Evidence(frame_of(gap(task="reviews", distribution="reviews", protocol="c" * 64))))[0]
    column = waiting.header.index("vs reviews-calibrated")
    cells = {row[1].value: row[column] for row in waiting.rows if row[0].value == "gptq"}
    assert (cells["wiki"].value, cells["reviews"].value) == ("–", "")
    assert f"{cells['wiki'].marks} – = no difference: the run calibrated on it has no score yet" in waiting.notes


def test_what_tests_found_is_marked_and_told_below(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    on = {"task": "wiki", "distribution": "wiki", "protocol": "a" * 64}
    found = frame_of(
        against_full(**on | {"task": "news"}, run_ids="wiki-gptq", difference=9.9, verdict="better"),
        against_full(**on, run_ids="wiki-gptq", family="recipes x columns of perplexity: 6"),
        against_full(**on, recipe="rtn", calib=DATA_FREE, run_ids="rtn", verdict="undecided"),
        gap(**on, calib="news", run_ids="news-gptq", metric="perplexity", unit="per token", ratio=1.1),
    )
    (table,) = tables(collate(store, [manifest]), "perplexity", Evidence(found))
    lines = {(row[0].value, row[1].value): row[-2:] for row in table.rows}
    assert lines["gptq", "wiki"][0].change == "+0.62±0.19▼"
    assert lines["rtn", DATA_FREE][0].change == "+0.62±0.19?"
    assert lines["gptq", "news"][1].value.endswith("▼")
    (marks,) = [line for line in table.caption if line.startswith("Behind a difference: ")]
    assert marks.startswith("Behind a difference: ▼ worse, ? undecided (p values adjusted by Holm over recipe")
    assert "(4,088 tokens, 8 clusters)" in table.opening[1]
    assert table.closing[0].startswith("On wiki, gptq calibrated on news is worse than calibrated on code: perplexity")
