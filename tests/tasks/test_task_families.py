"""Real sets of four families as calibration sets and as tests of a tiny model; skipped where they are not at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from prompts import long_llama
from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import WholeDocuments
from quantbench.config.catalogue import Catalogue
from quantbench.config.named import named_recipe
from quantbench.core.build import build
from quantbench.core.origin import Family, Origin
from quantbench.datasets.answers import AnswerSet
from quantbench.datasets.examples import ExampleSet
from quantbench.datasets.files import FileSource
from quantbench.datasets.labelled import LabelledSet, MapLabel
from quantbench.datasets.overlap import overlap
from quantbench.datasets.rendered import RenderedExamples
from quantbench.datasets.template import Template
from quantbench.metrics.metrics import check_items, measure
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks import task as kinds
from tiny import tiny_tokenizer

SHARED = Path(__file__).parents[2].parent / "shared" / "hf_home"
REAL = Path(os.environ.get("QUANTBENCH_HF_HOME", SHARED)) / "local" / "families"
CPU = torch.device("cpu")
TOKENIZER = tiny_tokenizer()

FAMILIES: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "SA": ("sentiment", "label", {"text": "text"}, {"1": "positive", "0": "negative", "2": "neutral"}),
    "NLI": (
        "inference",
        "label",
        {"premise": "premise", "hypothesis": "hypothesis"},
        {"0": "entailment", "1": "neutral", "2": "contradiction"},
    ),
    "TD": ("toxicity", "label", {"text": "text"}, {"0": "benign", "1": "toxic"}),
    "EQA": ("question", "extractive", {"passage": "context", "question": "question"}, {}),
}
"""Template, scoring, columns and label map of a family."""

BOTH, DEV = {"train": "train", "test": "test"}, {"train": "validation", "test": "test"}
SETS: dict[str, dict[str, dict[str, str] | None]] = {
    "SA": {"hutto_amazon": BOTH, "hutto_tweets": BOTH, "sst2": BOTH, "semeval2017_twitter": DEV},
    "NLI": {"snli": DEV, "sick": BOTH, "cb": {"train": "train", "test": "validation"}, "anli_r1": None},
    "TD": {"davidson": BOTH, "olid": BOTH, "toxigen": BOTH, "implicit_hate": BOTH},
    "EQA": {"squad": BOTH, "advqa": BOTH, "policyqa": DEV, "subjqa_books": DEV},
}
"""The files of each set's sides; None: its one file is cut."""

FAMILY: dict[str, Family] = {"SA": "sa", "NLI": "nli", "TD": "td", "EQA": "eqa"}

ONLY_TWO = {"sst2": ("2",)}


def data_of(folder: Path, family: str, name: str) -> ExampleSet:
    _, _, columns, labels = FAMILIES[family]
    files = SETS[family][name]
    sides: Any = files or {}
    path = folder / name if files else folder / name / "validation.jsonl"
    source = FileSource(path=path, **sides)
    origin = Origin(name=name, family=FAMILY[family], path=str(path))
    if not labels:
        return AnswerSet(source=source, origin=origin, columns=columns)
    kept = {value: text for value, text in labels.items() if value not in ONLY_TWO.get(name, ())}
    return LabelledSet(source=source, origin=origin, columns=columns, label=MapLabel(column="label", map=kept))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return named_recipe("gptq", ["quantizer.weight.group_size=16"])


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    if not REAL.is_dir():
        pytest.skip(f"the sets of {REAL} are not here")
    return request.param, Path(shutil.copytree(REAL / request.param, tmp_path / request.param))


def test_each_set_of_a_family_is_calibrated_on_and_tested(family: tuple[str, Path], recipe: Recipe) -> None:
    name, folder = family
    template = build(Catalogue().part("template", FAMILIES[name][0]), Template, "template")
    scoring = Catalogue().part("scoring", FAMILIES[name][1])
    own = {k: v for k, v in scoring.items() if k not in {"data", "template"}} | {"n": 4}
    if "max_new_tokens" in own:
        own["max_new_tokens"] = 4
    sets = {one: data_of(folder, name, one) for one in SETS[name]}
    target = own.pop("_target_")
    tasks = {one: _task(target, data, template, own) for one, data in sets.items()}
    tests = {one: task.load(TOKENIZER, "tok") for one, task in tasks.items()}
    for one, data in sets.items():
        source = RenderedExamples(data=data, template=template, with_answers=True)
        calib = Calibration(source=source, sampler=WholeDocuments(), n=2, length=256, seed=0).draw_set(TOKENIZER)
        assert calib.n_tokens == 512
        assert calib.contents
        handle = ModelHandle(long_llama(8192), TOKENIZER, "tiny")
        quantize_model(handle, recipe, calib.tokens, CPU, lambda _done, _all: None).artifact.install(handle)
        test = tests[one]
        found = overlap(calib, test.token_rows, test.documents, test.contents)
        assert found.shared_items == 0
        outcome = test.score(handle, one, None, CPU, lambda _done, _all: None)
        check_items(outcome.items, 4, one)
        values = [measure(metric, outcome.items).value for metric in test.metrics]
        assert all(0 <= value <= 1 for value in values)
        assert tasks[one].origin == source.origin == data.origin


def _task(target: str, data: ExampleSet, template: Template, options: dict[str, Any]) -> Any:
    module, _, kind = target.rpartition(".")
    made = getattr(__import__(module, fromlist=[kind]), kind)(data=data, template=template, **options)
    assert isinstance(made, kinds.Task)
    return made
