"""Sets of one's own, each by one file outside the repository: calibrated on, tested on, mixed, listed, in a family."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fake_hub import Branch, FakeHub, use_hub
from prompts import long_llama
from quantbench.cli.listing import list_options
from quantbench.config.cell import Cell
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders, config_dir
from quantbench.datasets.documents import Documents
from quantbench.launch.grid import run_grid
from tiny import save_tiny_model, tiny_tokenizer

FORUM = """
# calib=forum: what gardeners ask each other
hub: own/forum
text: post
test: validation
family: lm
domain: gardening
language: en
licence: CC0
"""
MOODS = """
# calib=moods: letters to a gardener, and whether they are friendly
hub: own/moods
text: letter
label: tone
labels: {1: positive, 0: negative, 7: null}
family: sa
domain: gardening
language: en
licence: CC0
"""
TICKETS = """
# calib=tickets: what our support receives, subject and body
path: {path}
text: "{{subject}}\\n\\n{{body}}"
group: customer
family: local
domain: support
language: de
licence: internal
"""
NAMES = ("forum", "moods", "tickets")
SIZES = ["calib.n=4", "calib.length=32", "scale=smoke", "scale.window=64", "scale.windows=4", "scale.items=6"]


def words(generator: random.Random, count: int) -> str:
    return " ".join("".join(generator.choices("abcdefghij", k=5)) for _ in range(count))


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    made = random.Random(0)
    posts = {side: jsonl([{"post": words(made, 30)} for _ in range(30)]) for side in ("train", "validation")}
    letters = {
        side: jsonl([{"letter": f"{words(made, 5)} {i}", "tone": (0, 1, 7)[i % 3]} for i in range(36)])
        for side in ("train", "test")
    }
    files = {"own/forum": posts, "own/moods": letters}
    repositories = {
        name: {
            "main": Branch("a" * 40, {"README.md": b"# x\n", **{f"{side}.jsonl": rows for side, rows in held.items()}})
        }
        for name, held in files.items()
    }
    with FakeHub(repositories) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """A folder of options with a file for each set, which lie on the hub and on the disk."""
    use_hub(monkeypatch, tmp_path / "home", hub.url)
    made = random.Random(1)
    rows: list[dict[str, object]] = [
        {"subject": "" if i % 5 == 0 else f"ticket {i}", "body": words(made, 12), "customer": f"A-{i // 3}"}
        for i in range(60)
    ]
    (tmp_path / "tickets.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "mine" / "calib").mkdir(parents=True)
    tickets = TICKETS.format(path=tmp_path / "tickets.jsonl")
    for name, content in zip(NAMES, (FORUM, MOODS, tickets), strict=True):
        assert len(yaml.safe_load(content)) <= 10
        (tmp_path / "mine" / "calib" / f"{name}.yaml").write_text(content.lstrip())
    return Folders([tmp_path / "mine"])


def cell(folder: Folders, *overrides: str) -> Cell:
    (found,) = compose_cells([*SIZES, *overrides], folder)
    return found


def join(folder: Folders, family: str, name: str) -> None:
    """Put a set into a family: a copy of its file with one member more."""
    content = yaml.safe_load((config_dir() / "family" / f"{family}.yaml").read_text())
    content["members"].append(name)
    path = Path(folder.own[0]) / "family" / f"{family}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_calibrated_on(folder: Folders, name: str) -> None:
    calib = cell(folder, f"calib={name}").calib
    assert calib is not None
    drawn = calib.draw_set(tiny_tokenizer())
    assert drawn.tokens.shape == (4, 32)
    assert drawn.name == name
    (source,) = calib.sources
    prompts = source.load("train").documents
    begins = {"moods": "Is the sentiment of the text positive or negative?\n\nText: "}.get(name, "")
    assert all(one.startswith(begins) for one in prompts)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_tested_on(folder: Folders, name: str) -> None:
    task = cell(folder, "calib=wiki_sample", f"eval.sets=[{name}]").tasks[name]
    test = task.load(tiny_tokenizer(), "f")
    assert test.n_positions > 0
    assert task.origin.name == name


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("forum", ["wiki", "c4", "ptb", "forum"]),
        ("moods", ["amazon", "dynasent", "semeval", "sst5", "moods"]),
        ("tickets", ["tickets"]),
    ],
)
def test_a_set_is_its_own_default_test_beside_the_members_of_its_family(
    folder: Folders, name: str, tests: list[str]
) -> None:
    assert list(cell(folder, f"calib={name}").tasks) == tests


def test_sets_are_mixed(folder: Folders) -> None:
    thirds = [f"calib.parts.{name}={weight}" for name, weight in zip(NAMES, (0.5, 0.25, 0.25), strict=True)]
    calib = cell(folder, "calib=mix", *thirds, "eval.sets=[forum]").calib
    assert calib is not None
    drawn = calib.draw_set(tiny_tokenizer())
    assert [(part.name, len(part.tokens)) for part in drawn.parts] == [("forum", 2), ("moods", 1), ("tickets", 1)]


def test_sets_are_listed(folder: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    list_options(["calib", f"--config-dir={folder.own[0]}"])
    said = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}
    assert table["forum"][:5] == ["lm", "(lm)", "gardening", "en", "CC0"]
    assert table["moods"][:5] == ["sa", "(sa)", "gardening", "en", "CC0"]
    assert table["tickets"][:5] == ["local", "(lm)", "support", "de", "internal"]
    assert "  tickets                  what our support receives, subject and body" in said.splitlines()


@pytest.mark.parametrize(
    ("family", "name", "sibling"), [("lm", "forum", "fineweb_edu"), ("sa", "moods", "sst5"), ("local", "tickets", "")]
)
def test_a_set_joins_a_family_by_that_familys_file_alone(folder: Folders, family: str, name: str, sibling: str) -> None:
    chosen = [f"calib={sibling}"] if sibling else ["calib=local", "calib.path=x"]
    before = list(cell(folder, *chosen).tasks)
    assert name not in before
    join(folder, family, name)
    after = list(cell(folder, *chosen).tasks)
    assert sorted(after) == sorted([*before, name])
    others = [list(cell(folder, f"calib={other}").tasks) for other in NAMES if other != name]
    assert not any(name in tests for tests in others)


def test_their_names_stand_in_the_tables(folder: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny_model(tmp_path / "model", long_llama())
    typed = ["-m", f"calib={','.join(NAMES)}", f"eval.sets=[{','.join(NAMES)}]", *SIZES, "quantizer=gptq"]
    model = ["model=local", f"model.path={tmp_path / 'model'}", "quantizer.weight.group_size=16", "threads=1"]
    run_grid(compose_cells([*typed, *model, f"output_dir={tmp_path / 'outputs'}"], folder), typed)
    (path,) = (tmp_path / "outputs").glob("sweeps/*/results.csv")
    frame = pd.read_csv(path)
    found = frame[frame["quantizer"] == "gptq"]
    assert set(found["calib"]) == set(found["task"]) == set(NAMES)
    relations = dict(zip(zip(found["calib"], found["task"], strict=True), found["relation"], strict=True))
    assert {relations[name, name] for name in NAMES} == {"in-distribution"}
    assert relations["forum", "tickets"] == "far OOD"  # another language
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)
    outputs = tmp_path / "outputs"
    drawn = {one["data"]: one for one in map(first_line, outputs.glob("runs/*/calibration.csv"))}
    assert set(drawn) == {"moods", "tickets"}  # the others' splits are those of the hub, in its order
    assert drawn["moods"]["place"].startswith("row ")
    assert drawn["tickets"]["place"].startswith(f"{tmp_path / 'tickets.jsonl'}, line ")
    (listing, *others) = [path.read_text() for path in outputs.glob("runs/*/scores/tickets-*.documents.csv")]
    assert set(others) == {listing}
    assert len(others) == len(NAMES)  # and full precision's


def first_line(path: Path) -> dict[str, str]:
    return next(csv.DictReader(path.read_text().splitlines()))


def test_a_class_of_ones_own_reads_a_set(folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(folder.own[0])
    (place / "own_reader.py").write_text(
        "from quantbench.core.component import component\n"
        "from quantbench.core.origin import Origin\n"
        "from quantbench.datasets.documents import Documents\n"
        "@component\n"
        "class Counted:\n"
        "    origin: Origin\n"
        "    words: int = 2\n"
        "    def load(self, split):\n"
        "        return Documents(self.origin.name, split, ['word ' * self.words] * 99, '1')\n"
        "    def check_reachable(self, split):\n"
        "        pass\n"
        "    def prepare(self):\n"
        "        return 'counted: nothing to do'\n"
    )
    (place / "calib" / "counted.yaml").write_text(
        "_target_: own_reader.Counted\nwords: 3\nfamily: lm\nsampler: whole_documents\ndomain: counting\n"
    )
    monkeypatch.syspath_prepend(str(place))
    found = cell(folder, "calib=counted", "calib.words=4", "eval.sets=[forum]").calib
    assert found is not None
    assert found.origins[0].language == "en"
    (source,) = found.sources
    documents: Documents = source.load("train")
    assert documents.documents[0] == "word word word word "
    assert found.draw_set(tiny_tokenizer()).tokens.shape == (4, 32)
