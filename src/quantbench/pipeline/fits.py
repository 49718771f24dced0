"""What to do where quantizing runs out of memory."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from quantbench.core.out_of_memory import memory_explained


def memory_of_quantizing(device: torch.device, tokens: Tensor | None) -> AbstractContextManager[None]:
    """Raise ModelError where quantizing, on tokens int64 [N, L] or none, runs out of memory: it says what would fit."""
    fits = [] if tokens is None else [f"shorter sequences (calib.length: one of {tokens.shape[1]} tokens is there)"]
    if device.type == "cpu":
        fits += ["more of it in files (a smaller memory_gib)"]
    else:
        fits += ["the machine's own memory (device=cpu)"]
    return memory_explained("quantizing, one block at a time", device, ", or ".join(fits))
