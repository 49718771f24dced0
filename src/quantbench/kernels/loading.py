"""Kernels are loaded when something is first computed with them, and do without where they cannot be."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from quantbench.core.progress import say_once

if TYPE_CHECKING:
    from torch import Tensor


@cache
def kernels(name: str) -> ModuleType | None:
    """The module `quantbench.kernels.NAME`, compiled; None, which is said once, where that is impossible."""
    try:
        return importlib.import_module(f"quantbench.kernels.{name}")
    except Exception as error:  # of the import, of the compiler, or of its libraries
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        say_once(f"the quick form of {name} cannot be compiled here, so that rounding takes longer: {reason}")
        return None


def on_processor(tensor: Tensor) -> bool:
    """Whether a tensor lies where kernels can read it."""
    return tensor.device.type == "cpu"


def in_parts(work: Callable[[int, int], None], count: int, threads: int, least: int) -> None:
    """Call work(start, end) for parts of 0 .. count side by side on so many threads; each has `least` at least.

    For work that leaves Python's lock alone. Raises what the work raises.
    """
    parts = max(1, min(threads, count // least))
    if parts == 1:
        work(0, count)
        return
    edges = [count * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(work, *edge) for edge in itertools.pairwise(edges)]:
            done.result()
