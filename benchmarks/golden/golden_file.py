"""How golden files are written: JSON with a row of a matrix per line, float32 in as few digits as give it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[2] / "tests" / "golden"
UNIT = 2.0**-10
"""Weights are whole multiples of it, so that a golden file holds them exactly."""


def integer_weight(rows: int, columns: int, seed: int) -> Tensor:
    """Normal values of very different sizes, rounded to integers [rows, columns]; times UNIT they are the weight."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.randn(rows, columns // 16, generator=draw).mul(0.7).exp().repeat_interleave(16, dim=1)
    return (torch.randn(rows, columns, generator=draw) * spread * 100).round()


def matrix(values: Tensor) -> list[list[float]]:
    """The values as JSON takes them."""
    return [[_shortest(value) for value in row] for row in values.float().numpy()]


def write(name: str, content: dict[str, Any]) -> None:
    """Write tests/golden/NAME.json."""
    text = json.dumps(content, indent=None).replace("[[", "[\n[").replace("], [", "],\n[").replace(', "', ',\n"')
    (FOLDER / f"{name}.json").write_text(text + "\n")


def _shortest(value: np.float32) -> float:
    return int(value) if float(value).is_integer() else float(str(value))
