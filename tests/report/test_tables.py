"""Tables as a reader sees them."""

from __future__ import annotations

import csv
import dataclasses
import io
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.paths import short_names
from quantbench.report.collate import collate
from quantbench.report.compare import recipe_table
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.legend import legend
from quantbench.report.render import console, csv_table, markdown, write_tables
from quantbench.report.tables import tables
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
    (before, _) = tables(frame, "perplexity")
    equal = (frame.quantizer == "gptq") & (frame.task == "wiki") & (frame.metric == "perplexity")
    frame.loc[equal, ["difference", "difference_stderr"]] = 0.0
    (after, _) = tables(frame, "perplexity")
    assert not any("same: no item" in line for line in before.caption)
    assert any(line.endswith("same: no item has another outcome.") for line in after.caption)
    assert "same" in {cell.change for row in after.rows for cell in row}


def test_the_table_in_a_terminal(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    gptq, rtn = tables(collate(store, [manifest]), "perplexity")
    assert console(gptq, width=100) == textwrap.dedent(
        """\
        perplexity (per token; lower is better): smollm2, gptq, 3.25 bits per weight

        calibration       news                reviews           wiki               transfer gap
        ----------------  ------------------  ----------------  -----------------  -----------------
        (full precision)  29.1±1.2            46.5±2.5          18.3±1.7
        news              30.8 +1.68±0.14*†§  49.9 +3.37±0.24†  19.6 +1.32±0.16†   -0.0392±0.0047[2]
        reviews           FAILED[1]           FAILED[1]         FAILED[1]
        wiki              31.8 +2.74±0.23     50.9 +4.38±0.31   19.6 +1.36±0.16*§  +1.064±0.090[2]

        Recipe: weight=Int(bits=3, group_size=64).
        Scale smoke; 16,384 calibration tokens; n = 8 windows (4,088 tokens) per column.
        Cells: value, then its difference from full precision ± standard error over windows, paired. Where
          no difference is shown, ± is the standard error of the value.
        * = calibrated on the test distribution (in-distribution).
        transfer gap: what is lost by not calibrating on the test distribution: the difference from the same
          recipe calibrated on it, paired per column, ± propagated standard error; mean over the row's
          out-of-distribution columns among news, wiki.
        [1] failed: ModelError: layer 3 is not finite
        [2] the mean of 1 of 2 columns: the others' own runs have no score yet
        † gave way while quantizing: news: damping_raised=2
        § more than 1 % of the items have 13 tokens in a row in common with the calibration text (a stock
          phrase, a notice; longer passages are refused), so they may be easier than others; at most 12.5 %,
          news on news (column overlap_13gram)
        """
    )
    assert [row[0].value for row in rtn.rows] == ["(full precision)", "(none: data-free)"]
    assert max(len(line) for line in console(gptq).splitlines()) <= 120


def test_prompts_and_answers_that_were_cut_are_counted_and_marked(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    scored = ("rtn", "wiki", "a" * 64)
    score = store.load_score(*scored)
    assert score is not None
    files.write_text(store.score_path(*scored), dataclasses.replace(score, cut_prompts=8, cut_answers=3).to_json())
    frame = collate(store, [manifest])
    found = frame[(frame["run_id"] == "rtn") & (frame["metric"] == "kl")]
    counts = found[["task", "cut_prompts", "cut_answers"]].fillna(-1).values.tolist()
    assert counts == [["news", -1, -1], ["reviews", -1, -1], ["wiki", 8, 3]]
    gptq, rtn = tables(frame, "kl")
    assert [cell.marks for cell in rtn.rows[0]] == ["", "", "", "✂"]
    told = "✂ wiki: cut because they are longer than what is read or generated: up to 8 prompts of 8, 3 answers of 8"
    assert told in rtn.notes
    assert not any("✂" in line for line in gptq.notes)
    assert told in recipe_table(store, [manifest], ["kl"]).notes


def test_a_divergence_shows_its_own_error(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    gptq, rtn = tables(collate(store, [manifest]), "kl")
    assert [[cell.value for cell in row] for row in rtn.rows] == [["(none: data-free)", *["0.0625±0.0031"] * 3]]
    assert gptq.rows[0][0].value == "news"
    assert gptq.rows[0][1].value == "0.01750±0.00087"


def test_markdown_and_csv_say_the_same(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    gptq = tables(collate(store, [manifest]), "perplexity")[0]
    lines = markdown(gptq).splitlines()
    assert lines[0] == "### perplexity (per token; lower is better): smollm2, gptq, 3.25 bits per weight"
    assert [cell.strip() for cell in lines[5].strip("|").split("|")] == [
        "news",
        "**30.8 +1.68±0.14**†§",
        "49.9 +3.37±0.24†",
        "19.6 +1.32±0.16†",
        "-0.0392±0.0047[2]",
    ]
    assert "- **bold** = calibrated on the test distribution (in-distribution)." in lines
    rows = list(csv.reader(io.StringIO(csv_table(gptq))))
    assert rows[0] == ["calibration", "news", "reviews", "wiki", "transfer gap"]
    assert rows[2][1:3] == ["30.8 +1.68±0.14*†§", "49.9 +3.37±0.24†"]


def test_tables_are_written_and_every_table_is_in_the_combined_file(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    made = write_tables(store, "demo", collate(store, [manifest]))
    folder = store.sweep_dir("demo") / "tables"
    expected = {f"{table.slug}.{kind}" for table in made for kind in ("md", "csv")} | {"tables.md"}
    assert {path.name for path in folder.iterdir()} == expected
    assert "perplexity-smollm2-gptq-smoke" in {table.slug for table in made}
    combined = (folder / "tables.md").read_text()
    assert combined.startswith("# demo\n")
    assert all((folder / f"{table.slug}.md").read_text() in combined for table in made)


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
    assert [cell.value for cell in table.rows[1]] == ["wiki", rounded(items["nll"].map(pow_e).iloc[0], None)]


def pow_e(value: float) -> float:
    return float(2.718281828459045**value)


def test_budgets_that_differ_get_a_column_and_draws_a_row_each(
    store: Store, make_cell: MakeCell, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    cells = []
    for draw, tokens in ((0, 16384), (1, 2048)):
        run_id = f"r{draw}"
        items = make_items("wiki", 0.1 + draw / 10)
        calibration = {"n_tokens": tokens, "seed": 42, "draw": draw}
        store.save_run(make_record(run_id, calibration=calibration, effective_bits=3.0 + draw))
        store.save_score(make_score(run_id, items), items)
        overrides = [f"calib.draw={draw}"]
        cells.append(make_cell("wiki", "gptq", run_id, key=run_id, tasks={"wiki": "a" * 64}, overrides=overrides))
    (table,) = tables(collate(store, [Manifest(name="demo", overrides=[], cells=cells)]), "perplexity")
    assert table.header == ["calibration", "tokens", "wiki"]
    assert [[cell.value for cell in row[:2]] for row in table.rows] == [
        ["(full precision)", ""],
        ["wiki draw=0", "16,384"],
        ["wiki draw=1", "2,048"],
    ]
    assert table.title.endswith("3 to 4 bits per weight")
    assert "2,048 to 16,384 calibration tokens" in console(table)


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


def test_columns_that_do_not_fit_go_below(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    gptq = tables(collate(store, [manifest]), "perplexity")[0]
    text = console(gptq, width=60)
    assert max(len(line) for line in text.splitlines()) <= 60
    assert text.count("calibration   ") == 2
    assert text.count("(full precision)") == 2


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
    lines = {row[0].value: [cell.marks for cell in row[1:4]] for row in gptq.rows}
    assert gptq.header[1:4] == ["news", "reviews", "wiki"]
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
    assert {row[0].value: row[3].marks for row in table.rows} == {"news": "◐†", "wiki": "§"}
    assert "transfer gap" not in table.header


def test_a_name_that_does_not_show_its_file_is_explained() -> None:
    paths = ["/data/日本.txt", "/data/中文.txt", "/data/plain.txt"]
    names = short_names(paths)
    origins = {names[path]: origin(names[path], path=path) for path in paths}
    cell = CellEntry(key="a", choices={}, overrides=[], tasks=dict.fromkeys(origins), task_origins=origins)
    lines = legend(Manifest(name="demo", overrides=[], cells=[cell]))
    assert lines == [f"{names[path]} = {path}" for path in sorted(paths[:2], key=lambda path: names[path])]


def test_a_gap_over_some_of_the_columns_says_so(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)  # in which the run calibrated on reviews failed
    table = next(one for one in tables(collate(store, [manifest]), "kl") if "gptq" in one.slug)
    gaps = {row[0].value: row[table.header.index("transfer gap")] for row in table.rows}
    (note,) = [line for line in table.notes if "the mean of 1 of 2 columns" in line]
    assert gaps["wiki"].marks == gaps["news"].marks == note.partition(" ")[0]
