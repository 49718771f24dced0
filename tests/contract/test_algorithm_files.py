"""The files of formats, rounding and transforms read as mathematics: short, not cloned, about tensors only."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "quantbench"
FILES = sorted(path for part in ("formats", "rounding", "transforms") for path in (PACKAGE / part).glob("*.py"))
FOREIGN = re.compile(
    r"\b(cuda|cpu|mps|hooks?|register_\w*hook|import transformers|from transformers|automodel\w*|"
    r"llama|mistral|mixtral|qwen|gemma|opt|neox|gptneox|bloom|falcon|phi|gpt2)\b",
    re.IGNORECASE,
)
"""Names of devices, hooks and models. Following the device of a tensor that was given is neither."""


def code(path: Path) -> list[str]:
    """Lines that say something: no blank ones, comments, imports or lone brackets."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if re.search(r"\w", line) and not re.match(r"#|import |from ", line)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_is_short_and_names_no_device_hook_or_model(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    assert FOREIGN.findall(text) == []


def test_no_two_share_six_lines() -> None:
    runs = {path: {tuple(lines[i : i + 6]) for i in range(len(lines) - 5)} for path in FILES for lines in [code(path)]}
    shared = [(a.name, b.name, *(runs[a] & runs[b])) for a, b in combinations(FILES, 2) if runs[a] & runs[b]]
    assert shared == []
