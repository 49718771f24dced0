"""`quantbench roofline` and `pareto`, and --hardware of `collate` and `report`, on a finished sweep of a tiny model."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from command import Workdir
from inside import in_process
from quantbench.config.catalogue import Catalogue
from quantbench.config.folders import Folders
from quantbench.config.machines import chosen_hardware, run_shapes
from quantbench.report.columns import RESULT_COLUMNS
from quantbench.report.modelled.columns import MODELLED_COLUMNS, Modelled
from quantbench.report.page.figures import sections
from quantbench.report.page.gather import gathered
from quantbench.report.scored import SweepScores
from quantbench.roofline.load import Load
from quantbench.store.store import Store

ON = ("--hardware", "a100_80gb", "--context", "64")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A sweep called bits: round to nearest in 8 and 3 bits."""
    made = Workdir(tmp_path_factory.mktemp("modelling"))
    done = made.answer("-m", "quantizer=rtn", "quantizer.weight.bits=8,3", "quantizer.weight.group_size=16")
    assert done.returncode == 0, done.stderr
    store = Store(made.outputs)
    (name,) = store.sweep_names()
    manifest = store.load_manifest(name)
    assert manifest is not None
    store.save_manifest(dataclasses.replace(manifest, name="bits"))
    return made


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def told(place: Workdir, *arguments: str) -> str:
    """What a command prints that succeeds."""
    done = in_process(arguments, place.folder)
    assert done.status == 0, done.said
    return done.printed


def refused(place: Workdir, *arguments: str) -> str:
    """What a command says that is refused."""
    done = in_process(arguments, place.folder)
    assert done.status == 2, (done.printed, done.said)
    return done.said


def test_every_entry_of_the_catalogue_has_its_numbers_and_their_source() -> None:
    folders = Folders()
    names = Catalogue(folders).entries("hardware")
    machines = [chosen_hardware(name, folders) for name in names]
    assert len(machines) >= 14
    assert all(one.source and one.description for one in machines)
    rates = {one.name: one.rates for one in machines}
    for found in rates.values():  # dense rates: 8 bits are at most four times as fast as 16, 4 bits twice as fast as 8
        assert found.get("int8", 0) <= 4.01 * found["fp16"]
        assert found.get("fp4", 0) <= 2.01 * found.get("fp8", 0)


def test_a_model_is_modelled_from_its_configuration_alone(place: Workdir, tmp_path: Path) -> None:
    folder = tmp_path / "config_only"
    folder.mkdir()
    (folder / "config.json").write_bytes((place.folder / "model" / "config.json").read_bytes())
    shown = told(place, "roofline", str(folder), *ON, "--weight-bits", "4.25", "--figure", str(tmp_path / "roof.svg"))
    assert "prefill: config_only on a100_80gb, batch 1, context 64" in shown
    assert re.search(r"^down_proj +2 .* memory ", shown, re.MULTILINE)
    assert "Modelled, not measured" in shown
    assert "NVIDIA A100 Tensor Core GPU data sheet" in shown
    assert (tmp_path / "roof.svg").read_text(encoding="utf-8").startswith("<svg")
    rows = table(tmp_path / "roof.csv")
    assert {row["kind"] for row in rows} == {"operator", "roof"}


def test_a_sweep_has_a_line_for_each_run_and_a_run_its_operators(place: Workdir) -> None:
    shown = told(place, "roofline", "bits", *ON)
    lines = [line for line in shown.splitlines() if line.startswith(("rtn", "full precision"))]
    assert len(lines) == 3
    store = Store(place.outputs)
    manifest = store.load_manifest("bits")
    assert manifest is not None
    run = next(cell.run_id for cell in manifest.cells if cell.run_id is not None)
    assert "decode: local on a100_80gb" in told(place, "roofline", run[:12], *ON)


def test_results_have_modelled_columns_where_hardware_is_named(place: Workdir) -> None:
    told(place, "collate", "bits", *ON)
    file = place.outputs / "sweeps" / "bits" / "results.csv"
    rows = table(file)
    assert list(rows[0]) == [*RESULT_COLUMNS, *MODELLED_COLUMNS]
    times = {row["variant"]: float(row["modelled_decode_ms"]) for row in rows if row["quantizer"] == "rtn"}
    three, eight = sorted(times.values())
    assert three < eight
    assert {row["modelled_hardware"] for row in rows} == {"a100_80gb, batch 1, context 64"}
    told(place, "collate", "bits")
    assert list(table(file)[0]) == list(RESULT_COLUMNS)


def test_pareto_shows_the_front_and_names_a_recipe_or_none(place: Workdir, tmp_path: Path) -> None:
    figure = tmp_path / "front.svg"
    cost = ("--x", "modelled_decode_ms", *ON)
    shown = told(place, "pareto", "bits", *cost, "--below", "100", "--figure", str(figure))
    assert "Modelled decode time against kl" in shown
    assert "The cheapest recipe with kl below 100 on" in " ".join(shown.split())
    assert "bits=3" in shown.partition("The cheapest recipe")[2]
    assert figure.read_text(encoding="utf-8").startswith("<svg")
    shown_there = table(figure.with_suffix(".csv"))
    assert {"modelled_decode_ms", "low", "high", "behind", "on_front"} <= set(shown_there[0])
    none = " ".join(told(place, "pareto", "bits", "--below", "1e-12").split())
    assert "None: no recipe is shown to have kl below 1e-12" in none
    by_bytes = told(place, "pareto", "bits", "--x", "bytes", "--markdown", str(tmp_path / "front.md"))
    assert "Bytes against kl" in by_bytes
    assert (tmp_path / "front.md").read_text(encoding="utf-8").startswith("### Bytes against kl")


def test_the_first_finding_of_a_report_is_the_recipe_within_a_bound_or_none(place: Workdir) -> None:
    page = place.outputs / "sweeps" / "bits" / "report.html"
    told(place, "report", "bits", "--x", "modelled_decode_ms", *ON, "--below", "100")
    assert "The cheapest recipe with kl below 100 on" in _first_finding(page)
    told(place, "report", "bits", "--below", "1e-12")
    assert _first_finding(page).startswith("None: no recipe is shown to have kl below 1e-12")
    told(place, "report", "bits")
    assert "below" not in _first_finding(page)


def _first_finding(page: Path) -> str:
    findings = page.read_text(encoding="utf-8").partition('<ul class="findings">')[2]
    return " ".join(re.sub("<[^>]*>", "", findings.partition("</li>")[0]).split())


def test_the_report_has_figures_of_modelled_time(place: Workdir) -> None:
    store, folders = Store(place.outputs), Folders()
    manifest = store.load_manifest("bits")
    assert manifest is not None
    shapes = run_shapes([manifest], folders)
    modelled = Modelled(chosen_hardware("a100_80gb", folders), Load(context=64), shapes)
    found = sections(gathered([SweepScores(store, manifest)], None, modelled))
    titles = {figure.title for section in found for figure in section.figures}
    assert {"Bits against loss", "Bytes against loss", "Modelled decode time against loss"} <= titles


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "bits", "--on", "local"), "--x, --y and --on are about a bound, which is missing"),
        (("report", "bits", "--below", "1", "--above", "1"), "--below and --above: give one"),
        (("report", "bits", "--below", "1", "--x", "modelled_decode_ms"), "it is modelled; name a machine"),
        (("roofline", "bits"), "roofline: name a machine: --hardware NAME"),
        (("roofline", "bits", "--hardware", "a100"), "hardware=a100: no such choice. Did you mean 'a100_80gb'"),
        (("roofline", "bits", *ON[:2]), "context=2048: model local takes 128 positions at most"),
        (("roofline", "nothing", *ON), "roofline nothing: no sweep, model, folder or run. Models: "),
        (("roofline", "bits", *ON, "--weight-bits", "4"), "--weight-bits: bits is a sweep, whose bits are those of"),
        (("roofline", "quantizer=rtn", *ON), "roofline quantizer=rtn: only model=NAME and its keys"),
        (("roofline", "bits", *ON, "--figure", "a.svg"), "--figure: the roofline is of one model"),
        (("pareto", "bits", "--x", "modelled_decode_ms"), "--x modelled_decode_ms: it is modelled; name a machine"),
        (("pareto", "bits", "--below", "1", "--above", "1"), "--below and --above: give one"),
        (("pareto", "bits", "--figure", "front"), "--figure front: end its name in .svg, .png or .pdf"),
        (("pareto", "bits", "--on", "nowhere"), "--on test=nowhere: no such choice"),
        (("collate", "bits", "--hardware", "a100_80gb", "--batch", "0"), "batch=0: expected a whole number"),
        (("eval=roofline",), "eval=roofline: modelled time and memory need no test"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(
    place: Workdir, arguments: tuple[str, ...], message: str
) -> None:
    if arguments == ("eval=roofline",):
        assert message in place.answer(*arguments).stderr
    else:
        assert message in refused(place, *arguments)


def test_a_machine_of_ones_own_is_a_file(place: Workdir, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("bandwidth_gb_s: 100\ntflops: {fp16: 2}\nmemory_gb: 8\nsource: measured here\n", encoding="utf-8")
    shown = told(place, "roofline", "bits", "--hardware", str(file), "--context", "64")
    assert "bits on mine, batch 1, context 64" in shown
    assert "Numbers of mine: measured here." in shown
    lacking = tmp_path / "lacking.yaml"
    lacking.write_text("tflops: {fp16: 2}\nmemory_gb: 8\nsource: measured here\n", encoding="utf-8")
    said = refused(place, "roofline", "bits", "--hardware", str(lacking), "--context", "64")
    assert "hardware lacking: bandwidth_gb_s is missing" in said
    assert "no such file" in refused(place, "roofline", "bits", "--hardware", str(tmp_path / "no.yaml")).lower()


def test_measured_time_is_an_axis_where_it_was_measured(place: Workdir) -> None:
    assert "no run of it was measured. quantbench export RUN" in refused(
        place, "pareto", "bits", "--x", "measured_decode_ms"
    )
    told(place, "collate", "bits")
    store = Store(place.outputs)
    rows = [row for row in table(place.outputs / "sweeps" / "bits" / "results.csv") if row["quantizer"] == "rtn"]
    by_bits = {row["weight_bits"]: row["run_id"] for row in rows}
    here = {
        "engine": "transformers",
        "format": "gptq",
        "device": "cpu",
        "threads": 2,
        "batch": 1,
        "context": 8,
        "decode": 4,
    }
    for bits, seconds, environment in [("8", 0.5, "other"), ("8", 0.002, "e1"), ("8", 0.004, "e1"), ("3", 0.001, "e1")]:
        line = {"what": "decode", "seconds": seconds, "environment": environment, "at": "2026-01-01", **here}
        store.append_cost(by_bits[bits], line)
    shown = told(place, "pareto", "bits", "--x", "measured_decode_ms", "--below", "100")
    joined = " ".join(shown.split())
    assert "Measured of exports to gptq by transformers on cpu, threads=2, batch=1, context=8, decode=4" in joined
    assert "environment e1: 2 of 2 quantized runs. Left out: measurements under other conditions (1)." in joined
    assert "at 1 ms a token" in joined
    assert re.search(r"rtn weight.bits=8 .* 3 ", shown)
    assert re.search(r"rtn weight.bits=3 .* 1 ", shown)
