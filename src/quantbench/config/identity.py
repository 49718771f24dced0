"""What makes two runs the same run."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from pathlib import Path
from typing import Any

from quantbench import NUMERICS_VERSION
from quantbench.config.build import DESCRIPTION
from quantbench.core.errors import ConfigError
from quantbench.core.hashing import hash_path

ABSENT: tuple[Any, ...] = (None, (), {}, [])


def identity(value: Any) -> Any:
    """Plain JSON of a component's resolved constructor arguments, its defaults included, `about` left out.

    An option that is null or empty stands for nothing and is left out, too: so a new kind of part, null where it is not
    used, does not make finished runs new. A local path counts by the sha256 of what lies there, not by its name, and a
    class from outside this package by its source, too. A component with a method `check_files` is asked before its
    files are hashed, so that it can name the option that is wrong. Raises QuantbenchError if it does, or if nothing
    lies at a path.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "check_files"):
            value.check_files()
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name != DESCRIPTION}
        given = {name: identity(field) for name, field in fields.items() if field not in ABSENT}
        return {**_class_identity(type(value)), **given}
    if isinstance(value, dict):
        return {str(k): identity(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [identity(v) for v in value]
    if isinstance(value, Path):
        return f"sha256:{hash_path(value)}"
    return value


def component_identity(component: Any) -> Any:
    """`identity`, worked out once for each object: the cells of a grid share their components."""
    known = _known.get(id(component))
    if known is None:
        known = _known[id(component)] = (component, identity(component))
    return known[1]


_known: dict[int, tuple[Any, Any]] = {}
"""By id; each object is kept, so that its id stays its own."""


@cache
def _class_identity(kind: type) -> dict[str, str]:
    """The import path; of a class from outside this package also the sha256 of its source file, as first seen here.

    Classes of this package count by NUMERICS_VERSION instead: an edit that changes no number leaves runs valid.
    """
    found = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return found
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None:
        raise ConfigError(f"{found['_target_']}: its module has no source file, which a component needs")
    return found | {"_source_": f"sha256:{hash_path(Path(file))}"}


def run_identity(model: Any, recipe: Any, calib: Any | None, seed: int, replicate: int) -> dict[str, Any]:
    """The identity of a run. Without calibration data (calib None) no seed or replicate can matter, and none counts."""
    parts: dict[str, Any] = {
        "numerics_version": NUMERICS_VERSION,
        "model": component_identity(model),
        "quantizer": component_identity(recipe),
    }
    if calib is not None:
        parts |= {"calib": component_identity(calib), "seed": seed, "replicate": replicate}
    return parts
