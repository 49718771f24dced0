"""Options are read, checked and refused before anything that takes seconds is imported."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from quantbench.config.folders import config_dir

PARTS = (
    "model",
    "quantizer",
    "recipe",
    "policy",
    "allocation",
    "format",
    "activation",
    "kv_cache",
    "rotation",
    "transform",
    "clip",
    "rounding",
)
SLOW = ("torch", "transformers", "huggingface_hub", "safetensors")

REFUSE_A_FOLDER = """
from quantbench.core.errors import ModelError
from quantbench.models.loading import LocalModel

try:
    LocalModel(name="local", path="nowhere", dtype="float32").check_reachable()
except ModelError as error:
    assert "model.path=nowhere: no such folder" in str(error)
else:
    raise AssertionError
"""


def targets() -> list[str]:
    """Every component that an option file of a model or a recipe names."""
    texts = [path.read_text() for part in PARTS for path in (config_dir() / part).glob("*.yaml")]
    return sorted({found for text in texts for found in re.findall(r"_target_: *([\w.]+)", text)})


def imported_after(code: str) -> set[str]:
    """Which of the slow libraries a new interpreter has imported when it has run the code."""
    report = f"import sys\n{code}\nprint(*(name for name in {SLOW} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_an_unusable_model_is_refused_before_torch_is_imported() -> None:
    assert imported_after(REFUSE_A_FOLDER) == set()


@pytest.mark.parametrize("part", ["model", "recipe"])
def test_no_component_imports_torch_when_it_is_named(part: str) -> None:
    wanted = [target for target in targets() if (".models." in target) == (part == "model")]
    assert wanted
    lines = [f"import {target.rpartition('.')[0]}" for target in wanted]
    assert imported_after("\n".join(lines)) == set()
