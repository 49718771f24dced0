"""What is known of every data set: it is typed, complete, and a key or a family that is none is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from quantbench.calibration.base import AnyCalibration
from quantbench.config.calibrations import Calibrations
from quantbench.config.catalogue import Catalogue
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders
from quantbench.config.resolving import resolver
from quantbench.core.build import build
from quantbench.core.errors import ConfigError
from quantbench.core.origin import CONTROL_FAMILY, FAMILIES, UNKNOWN

OPTIONS = Catalogue()
DRAW = {"n": 16, "length": 512, "seed": 0, "draw": 0, "split": "train"}
ROOT = {"seed": 0, "scale": {"window": 512, "windows": 8, "items": 200}}
TOLD = {"mix": {"parts": {"wiki": 0.5, "sst2": 0.5}}}
FILES = {"local", "boss_eqa", "boss_ner", "boss_nli", "boss_sa", "boss_td"}
"""Options that read files of the user's, and know only what all of them have in common."""


def node(name: str, **told: Any) -> dict[str, Any]:
    """An option as the command line composes it."""
    option = OPTIONS.option("calib", name)
    required = {key: "x" for key, value in option.items() if value == "???"}
    merged = OmegaConf.merge(DRAW, option, required, TOLD.get(name, {}), told)
    found: Any = OmegaConf.to_container(OmegaConf.create({**ROOT, "calib": merged}), resolve=True)
    return dict(found["calib"])


@pytest.mark.parametrize("name", OPTIONS.files("calib"))
def test_every_option_is_a_calibration_set_of_which_enough_is_known(name: str) -> None:
    made = Calibrations(OPTIONS, resolver(ROOT, "calib"))
    calib = build(made.full(name, node(name)), AnyCalibration, "calib")
    assert len(OPTIONS.option("calib", name)) <= 10
    for origin in calib.origins:
        assert origin.family in FAMILIES
        if origin.family == CONTROL_FAMILY or name in FILES:
            continue
        assert UNKNOWN not in (origin.family, origin.domain, origin.language)
        assert origin.licence
        assert origin.name == name or name == "mix"
    assert made.default_tests(name, node(name))


@pytest.mark.parametrize("name", OPTIONS.files("family"))
def test_every_family_lists_sets_that_there_are_and_has_ones_of_its_own(name: str) -> None:
    sets = OPTIONS.files("calib")
    assert set(OPTIONS.members(name)) <= set(sets)
    like = {str(OPTIONS.option("family", family).get("like")) for family in OPTIONS.files("family")}
    assert name in like | {str(OPTIONS.option("calib", one).get("family")) for one in sets}


# What is wrong is said

MINE = {"hub": "own/mine", "family": "lm", "domain": "tickets", "language": "en", "licence": "mine"}


def refusal(folder: Path, *overrides: str, families: dict[str, Any] | None = None, **facts: Any) -> str:
    """What is said of a set of the user's, and perhaps families."""
    for name, content in {"calib/mine": {**MINE, **facts}, **(families or {})}.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    with pytest.raises(ConfigError) as caught:
        compose_cells(overrides or ["calib=mine"], Folders([folder]))
    return str(caught.value)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"langauge": "en"}, "calib.langauge: no such option. Did you mean 'language'? Valid here: "),
        ({"splits": {"test": "dev"}}, "calib.splits: no such option. Valid here: "),
        ({"labels": {"1": "good"}}, "calib.labels: no such option. Valid here: "),  # nothing of a text reads it
        ({"family": "nli", "text": "body"}, "calib.text: no such option. Did you mean 'test'?"),  # {premise}, ...
        ({"family": "sa", "labels": ["good"]}, "calib.labels=['good']: expected a mapping of the column's values"),
        ({"family": "sa", "labels": {1: "a"}, "label": ["x"]}, "calib.label=['x']: the name of one column, where"),
        ({"family": "sa"}, "calib.label: this option is required"),
        ({"family": "lmm"}, "family=lmm: no such choice. Did you mean 'lm'?"),
        ({"family": None}, "calib.family: this option is required; families: ceval, cmmlu, eqa"),
        ({"language": 3}, "calib.language=3: input should be a valid string"),
        ({"relatives": "wiki"}, "calib.relatives='wiki': input should be a valid tuple"),
        ({"hub": None}, "calib: where does it lie? Give one of path, package, hub, files"),
        ({"path": "a.txt"}, "calib: path and hub both say where it lies: give one of them"),
        ({"tests": ["wkii"]}, "calib.tests: calib=wkii: no such choice. Did you mean 'wiki'?"),
        ({"sampler": "whole"}, "sampler=whole: no such choice. There are: document_windows"),
    ],
)
def test_a_fact_that_is_none_is_refused(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    assert refusal(tmp_path, **facts).startswith(said)


def test_what_a_familys_sets_have_in_common_need_not_concern_every_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\n")
    set_of_code = [f"calib.path={tmp_path / 'a.py'}", "calib.family=lm_code"]
    (cell,) = compose_cells(["calib=local", *set_of_code])  # lm_code has max_documents, which no file has
    assert cell.calib is not None
    assert cell.calib.origins[0].language == "unknown"  # `local` says so itself
    with pytest.raises(ConfigError, match=r"^calib\.max_documents: no such option"):
        compose_cells(["calib=local", *set_of_code, "calib.max_documents=3"])


def test_so_it_is_where_the_set_is_tested_or_mixed(tmp_path: Path) -> None:
    expected = "calib=mine.langauge: no such option. Did you mean 'language'?"
    assert refusal(tmp_path, "eval.sets=[mine]", langauge="en").startswith(expected)
    assert refusal(tmp_path, "calib=mix", "calib.parts.mine=1", langauge="en").startswith(expected)


def test_so_it_is_where_a_value_is_wrong(tmp_path: Path) -> None:
    expected = "language=3: input should be a valid string"
    assert refusal(tmp_path, "eval.sets=[mine]", language=3).startswith(f"eval.tasks.mine.{expected}")
    assert refusal(tmp_path, "calib=mix", "calib.parts.mine=1", language=3).startswith(f"calib=mine.{expected}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("calib.langauge=en", "calib.langauge: no such option. Did you mean 'language'?"),
        ("+calib.langauge=en", "calib.langauge: no such option. Did you mean 'language'?"),
        ("calib.family=lmm", "family=lmm: no such choice. Did you mean 'lm'?"),
        ("eval.tasks.mine.langauge=en", "eval.tasks.mine.langauge: no such option. Did you mean 'language'?"),
        ("calib.n=many", "calib.n='many': input should be a valid integer"),
        ("calib.max_documents=0", "calib.max_documents=0: input should be greater than or equal to 1"),
        ("eval.tasks.mine.max_documents=many", "eval.tasks.mine.max_documents='many': input should be a valid integer"),
        ("eval.tasks.mine.language=3", "eval.tasks.mine.language=3: input should be a valid string"),
        ("eval.tasks.mime.language=en", "eval.tasks.mime: no such test here; tests: wiki, c4, ptb, mine"),
        ("eval.tasks.mine.n_windwos=3", "eval.tasks.mine.n_windwos: no such option. Did you mean 'n_windows'?"),
    ],
)
def test_so_it_is_on_the_command_line(tmp_path: Path, override: str, said: str) -> None:
    assert refusal(tmp_path, "calib=mine", override).startswith(said)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ({"like": "lm", "kind": "lmm"}, "family fresh: kind='lmm'; the kinds are lm, instruct, sa"),
        ({"like": "lm", "memebers": ["wiki"]}, "family fresh.memebers: no such option. Did you mean 'members'?"),
        ({"like": "lmm"}, "family=lmm: no such choice. Did you mean 'lm'?"),
        ({"like": "fresh"}, "family fresh: it is like itself (fresh like fresh)"),
        ({"kind": "lm", "scoring": "text"}, "family fresh: `reads` is missing"),
        ({"like": "lm", "members": ["wkii"]}, "family fresh.members: calib=wkii: no such choice. Did you mean 'wiki'?"),
        ({"like": "lm", "common": {"langauge": "en"}}, "calib.langauge: no such option. Did you mean 'language'?"),
        ({"like": "lm", "scoring": "txt"}, "scoring=txt: no such choice. Did you mean 'text'?"),
        ({"like": "lm", "reads": "quantbench.datasets.text.Text"}, "family fresh.reads._target_: 'quantbench.da"),
    ],
)
def test_a_family_that_cannot_work_is_refused(tmp_path: Path, family: dict[str, Any], said: str) -> None:
    assert refusal(tmp_path, family="fresh", families={"family/fresh": family}).startswith(said)
