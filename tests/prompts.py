"""Small example sets on disk, and tasks on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from quantbench.core.origin import Family, Origin
from quantbench.datasets.answers import AnswerSet
from quantbench.datasets.files import FileSource
from quantbench.datasets.labelled import LabelledSet, MapLabel
from quantbench.datasets.template import Template
from quantbench.tasks.label import LabelTask
from tiny import tiny

SENTIMENT = Template(instruction="{labels}?", item="Text: {text}\nIs:", answer=" {answer}", passage="text")
PAIR = Template(instruction="", item="{premise}\nQ: {hypothesis}\nA:", answer=" {answer}", passage="premise")
QUESTION = Template(instruction="", item="P: {passage}\nQ: {question}\nA:", answer=" {answer}", passage="passage")


def long_llama(positions: int = 2048) -> LlamaForCausalLM:
    """A tiny Llama with a longer context."""
    return tiny(LlamaConfig, LlamaForCausalLM, max_position_embeddings=positions)


def write_rows(folder: Path, **splits: Sequence[dict[str, Any]]) -> Path:
    """A folder with a .jsonl file for each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def own(family: Family, path: Path) -> Origin:
    """Of a set of one's own, called `mine`."""
    return Origin(name="mine", family=family, path=str(path))


def labelled(folder: Path, labels: Sequence[str] = ("bad", "good"), **columns: str) -> LabelledSet:
    """Rows of a folder with a label column of the numbers 0, 1, ..."""
    return LabelledSet(
        source=FileSource(path=folder),
        origin=own("sa", folder),
        columns=columns or {"text": "text"},
        label=MapLabel(column="label", map={str(i): label for i, label in enumerate(labels)}),
    )


def answered(folder: Path) -> AnswerSet:
    """Rows of a folder in SQuAD's form."""
    columns = {"passage": "context", "question": "question"}
    return AnswerSet(source=FileSource(path=folder), origin=own("eqa", folder), columns=columns)


def label_task(data: LabelledSet, template: Template = SENTIMENT, **options: Any) -> LabelTask:
    """A label task with the options of conf/parts/scoring.yaml."""
    usual: dict[str, Any] = {"split": "test", "n": None, "shots": 0, "shot_seed": 0, "max_tokens": None}
    usual |= {"normalize": "none", "contextual_calibration": False}
    return LabelTask(data=data, template=template, **(usual | options))


def reviews(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of different lengths with labels 0 and 1."""
    return [{"text": f"review {i} " + "so " * (i % 7) + "nice", "label": i % 2} for i in range(start, start + count)]
