"""Tasks are composed without the libraries that score them."""

from __future__ import annotations

import subprocess
import sys

MODULES = ("windows", "label", "exam", "extractive", "token_classification", "generative", "lm_eval.task", "task")
HEAVY = ("torch", "transformers", "datasets", "lm_eval")


def test_modules_of_components_import_neither_torch_nor_transformers_nor_lm_eval() -> None:
    imports = "; ".join(f"import quantbench.tasks.{name}" for name in MODULES)
    code = f"import sys; {imports}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
