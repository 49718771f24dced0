"""Asking a script in a process of its own, perhaps in another interpreter: a folder of questions, and an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from quantbench.core.errors import ModelError


def answer_of(script: str, folder: Path, request: Path, python: Path | None, what: str) -> dict[str, Any]:
    """What `python script FOLDER REQUEST` wrote into answer.json of the request's folder; python None: this one.

    Raises ModelError that begins with `what` and ends with the last line that the script said, if it fails.
    """
    command = [str(python or sys.executable), script, str(folder), str(request)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    answer = request / "answer.json"
    if done.returncode or not answer.exists():
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise ModelError(f"{what}: {last}")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found
