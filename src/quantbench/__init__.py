"""quantbench: what calibrating on one text costs a quantized language model on another."""

import importlib
from typing import Any

from quantbench.core.version import NUMERICS_VERSION, __version__

API = ("LoadedModel", "QuantizationReport", "load_run", "quantize", "read_comparisons", "read_sweep")
"""Names of quantbench.api that are there as quantbench.NAME, too."""

__all__ = [
    "NUMERICS_VERSION",
    "LoadedModel",
    "QuantizationReport",
    "__version__",
    "load_run",
    "quantize",
    "read_comparisons",
    "read_sweep",
]


def __getattr__(name: str) -> Any:
    """The public API, imported when it is first asked for: `import quantbench` itself imports no library."""
    if name in API:
        return getattr(importlib.import_module("quantbench.api"), name)
    raise AttributeError(f"module 'quantbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *API})
