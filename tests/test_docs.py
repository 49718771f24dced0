"""The pages say what the code does: every block of code runs, composes or is read, and links lead somewhere."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import json
import pkgutil
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml

from command import Workdir
from doc_pages import DOCS, PAGES, ROOT, Block, Command, blocks, commands, write_files
from quantbench.cli.flags import config_dirs, split
from quantbench.cli.main import COMMANDS
from quantbench.config.catalogue import Catalogue
from quantbench.config.composer import Composer, cells_of, compose_cells, offline_composer
from quantbench.config.folders import Folders, config_dir
from quantbench.config.overrides import to_hydra
from quantbench.core.errors import ConfigError, StoreError
from quantbench.metrics.metrics import METRICS
from quantbench.pipeline.policy import Policy
from quantbench.pipeline.recipe import Recipe
from quantbench.report.columns import RESULT_COLUMNS
from quantbench.store.store import Store
from test_floors import FLOORS

SHELL = {"make", ".", "python3", ".venv/bin/pip", "pre-commit"}

_LINK = re.compile(r"(?<!!)\]\((?!https?:)([^)#\s]+)")
_NAME = re.compile(r"`(quantbench(?:\.\w+)+)`")
_CODE = re.compile(r"`([^`\n]+)`")
_CHOICE = re.compile(r"\+?(model|calib|quantizer|eval|scale|cluster|sweep|format|rounding)(?:@[\w.]+)?=([a-z0-9_,]+)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

OF_BEFORE = {"migration", "CHANGELOG"}
"""Pages that speak of names that are no more."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages show."""
    folder = tmp_path_factory.mktemp("pages")
    write_files(folder)
    return folder


def site_module(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


# Text


def test_the_readme_has_at_most_a_thousand_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in OF_BEFORE], ids=lambda page: page.name)
def test_dotted_names_name_something(page: Path) -> None:
    prose = _FENCED.sub("", page.read_text(encoding="utf-8"))
    missing = [name for name in dict.fromkeys(_NAME.findall(prose)) if not _is_there(name)]
    assert not missing


def _is_there(name: str) -> bool:
    """Whether a module is called like that, or something that one holds."""
    try:
        return bool(pkgutil.resolve_name(name))
    except (AttributeError, ImportError):
        return False


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in OF_BEFORE], ids=lambda page: page.name)
def test_overrides_in_the_prose_are_those_of_today(page: Path, files: Path) -> None:
    prose = _FENCED.sub("", page.read_text(encoding="utf-8"))
    written = [word for code in _CODE.findall(prose) for word in code.split() if "=" in word]
    to_hydra([word.strip("'") for word in written])  # refuses what has another form today
    known = Catalogue(Folders([files / "mine", files / "mylab" / "conf"]))
    chosen = [found.groups() for word in written if (found := _CHOICE.fullmatch(word))]
    named = [(group, name) for group, names in chosen for name in names.split(",")]
    assert [one for one in dict.fromkeys(named) if one[1] not in known.files(one[0])] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if page.name not in navigation] == []


def test_every_option_of_a_recipe_is_in_its_table() -> None:
    _, _, table = (DOCS / "add_a_quantizer.md").read_text().partition("## Options of a recipe")
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    listed = re.findall(r"`([\w.]+)`", "\n".join(rows))
    own = [f.name for f in dataclasses.fields(Recipe) if f.name not in {"policy", "about"}]
    assert sorted(listed) == sorted([*own, *(f"policy.{f.name}" for f in dataclasses.fields(Policy))])


def test_the_floors_are_drawn_as_they_are() -> None:
    _, _, section = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The floors")
    drawn: list[set[str]] = []
    for line in section.split("```")[1].strip("\n").splitlines():
        words = re.split(r"\s{2,}", line.strip())
        if words[0].isdigit():
            assert int(words.pop(0)) == len(FLOORS) - 1 - len(drawn)
            drawn.append(set())
        drawn[-1] |= set(words[::2])
    assert drawn == FLOORS[::-1]


def test_the_picture_is_that_of_the_table() -> None:
    picture = site_module("picture")
    rows = picture.rows((DOCS / "demo.md").read_text(encoding="utf-8"))
    assert [row.recipe for row in rows] == ["RTN", *["GPTQ"] * 3, *["AWQ"] * 3]
    assert picture.svg(rows) == picture.FILE.read_text(encoding="utf-8")


# The catalogue


def test_every_option_file_is_in_the_catalogue() -> None:
    pages = site_module("catalogue").pages(config_dir())
    options = [file for file in config_dir().rglob("*.yaml") if file.parent != config_dir()]
    assert len(options) > 100
    for file in options:
        group = file.parent.relative_to(config_dir()).as_posix()
        assert file.read_text(encoding="utf-8").rstrip() in pages[f"{group.replace('/', '_')}.md"], file
    assert "+sweep=demo" in pages["sweep.md"]
    assert "[`template: sentiment`](#template) | the sentiment of a text |" in pages["parts.md"]
    assert "| [`vader`](#vader) | sentiment in four domains out of a package" in pages["family.md"]
    assert (
        "| sa | sentiment | label | vader_reviews; vader_film; vader_tweets; vader_editorials |" in pages["family.md"]
    )


def test_the_catalogue_takes_the_facts_of_a_family_in(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    for name, text in {
        "family/like_sa": "common: {language: en, hub: there}",
        "family/stars": "like: like_sa\ncommon: {licence: MIT}",
        "calib/hotels": "# calib=hotels: rooms | rates\nfamily: stars\ndomain: travel",
    }.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / f"{name}.yaml").write_text(text)
    (row,) = [line for line in site_module("catalogue").pages(conf)["calib.md"].splitlines() if "| rooms" in line]
    assert row == "| [`hotels`](#hotels) | rooms \\| rates | stars | travel | en | there | MIT |  |"


# Files


@pytest.mark.parametrize("block", [b for b in blocks("yaml", "json") if b.file], ids=lambda block: block.name)
def test_files_are_read(block: Block) -> None:
    if block.file.endswith(".jsonl"):
        assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
        return
    assert isinstance(yaml.safe_load(block.text), dict)
    comments = [line for line in block.text.splitlines() if line.startswith("#")]
    group, name = Path(block.file).parts[-2], Path(block.file).stem
    if group in {"calib", "eval", "model", "quantizer", "cluster"}:
        assert comments[0].startswith(f"# {group}={name}: ")


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    kinds = {(block.language, bool(block.file)) for block in blocks() if block.page.stem != "CHANGELOG"}
    checked = {("sh", False), ("bash", False), ("python", False), ("python", True), ("yaml", True), ("json", True)}
    assert kinds - checked <= {("", False), ("bibtex", False), ("json", False)}
    for block in blocks("json"):
        assert all(json.loads(line) for line in block.text.splitlines())


# Commands


@pytest.fixture(scope="module")
def composer() -> tuple[Composer, Any]:
    """One for all commands without options of their own: what it has composed before takes no time again.

    Hydra is left at once, since commands with options of their own enter it.
    """
    with offline_composer() as made:
        return made


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in commands() if one.of_quantbench], ids=lambda one: one.name)
def test_commands_are_those_there_are(
    command: Command, files: Path, composer: tuple[Composer, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.syspath_prepend(str(files))
    monkeypatch.delenv("QUANTBENCH_OUTPUTS", raising=False)
    _check([*command.words[command.of_quantbench :]], *composer)


@pytest.mark.parametrize("command", [one for one in commands() if not one.of_quantbench], ids=lambda one: one.name)
def test_targets_and_scripts_are_those_there_are(command: Command) -> None:
    program, *arguments = command.words
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "python":
        module, *options = arguments[1:] if arguments[0] == "-m" else arguments
        file = f"{module.replace('.', '/')}.py" if arguments[0] == "-m" else module
        script = (ROOT / file).read_text(encoding="utf-8")
        assert [word for word in options if word.startswith("-") and f'"{word}"' not in script] == []
    else:
        assert program in SHELL


def _check(arguments: list[str], composer: Composer, loader: Any) -> None:
    """Compose the cells, which checks all their options; run other commands, in a folder without results.

    A sweep as it stands must be there: tests/launch/test_options.py composes its cells. "[GROUP]" and "[key=value ...]"
    stand for what may be given.
    """
    name, *rest = [word for word in arguments if not (word.startswith("[") or word == "...]")]
    if name in COMMANDS and name != "prepare":
        with contextlib.suppress(StoreError):
            module, _, function = COMMANDS[name].rpartition(".")
            getattr(importlib.import_module(module), function)(rest)
    elif name != "prepare" or rest:
        flags, overrides = split(rest if name == "prepare" else [name, *rest])
        folders, flags = config_dirs(flags)
        line, own = [*flags, *overrides], Folders(folders)
        if not folders and {one.partition("=")[0] for one in overrides} in ({"+sweep"}, {"+sweep", "dry_run"}):
            (sweep,) = (one.partition("=")[2] for one in overrides if one.startswith("+sweep="))
            assert (config_dir() / "sweep" / f"{sweep}.yaml").exists()
        else:
            assert compose_cells(line, own) if folders else cells_of(composer, loader, line, own)


# Python


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the blocks of Python on the pages read: a finished sweep called demo, a model, texts, results of before."""
    place = Workdir(tmp_path_factory.mktemp("python"))
    done = place.answer("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16")
    assert done.returncode == 0, done.stderr
    store = Store(place.outputs)
    (name,) = store.sweep_names()
    manifest = store.load_manifest(name)
    assert manifest is not None
    store.save_manifest(dataclasses.replace(manifest, name="demo"))
    shutil.move(place.folder / "model", place.folder / "FOLDER")
    shutil.copytree(place.folder / "FOLDER", place.folder / "model")
    shutil.copy(place.text, place.folder / "mytext.txt")
    (place.folder / "docs").mkdir()
    shutil.copy(DOCS / "renames.csv", place.folder / "docs")
    (place.folder / "old_results.csv").write_text("metric,own_difference\nsame_top,0.5\n")
    return place.folder


@pytest.mark.parametrize("block", [b for b in blocks("python") if not b.file], ids=lambda block: block.name)
def test_python_runs(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("QUANTBENCH_OUTPUTS", raising=False)
    names: dict[str, Any] = {}
    exec(compile(block.text, block.name, "exec"), names)
    if block.page.stem == "migration":
        pd.testing.assert_frame_equal(
            names["frame"], pd.DataFrame({"metric": ["top1_agreement"], "transfer_gap": [0.5]})
        )


# Names of before


def renames() -> list[dict[str, str]]:
    with (DOCS / "renames.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_map_of_names_is_one() -> None:
    rows = renames()
    assert {tuple(row) for row in rows} == {("kind", "old", "new")}
    old = [(row["kind"], row["old"]) for row in rows]
    assert len(old) == len(set(old))
    assert all(row["old"] != row["new"] for row in rows)


def test_new_names_of_code_are_there() -> None:
    named = [row["new"] for row in renames() if row["kind"] in {"module", "class", "function"} and row["new"]]
    assert len(named) > 200
    assert [name for name in dict.fromkeys(named) if not _is_there(name)] == []


def test_new_names_of_results_are_there() -> None:
    new = {row["new"] for row in renames() if row["kind"] == "column"} - {"transfer gap", "answers.csv:generated"}
    assert new - {"top1_agreement"} <= set(RESULT_COLUMNS)
    assert {row["new"] for row in renames() if row["kind"] == "metric"} <= set(METRICS)


def test_command_lines_of_before_are_answered_with_those_of_today() -> None:
    _, _, section = (DOCS / "migration.md").read_text(encoding="utf-8").partition("## Command lines")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 20
    for before, today in rows:
        with pytest.raises(ConfigError) as refused:
            to_hydra(before.split())
        assert f"this is now {today}" in str(refused.value)
