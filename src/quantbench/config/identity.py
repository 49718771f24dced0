"""What makes two runs the same run."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from quantbench.core.errors import ConfigError
from quantbench.core.hashing import hash_path
from quantbench.core.version import NUMERICS_VERSION

DESCRIPTIVE = ("about", "origin")
"""Fields that describe what stands beside them, and decide no number."""

ABSENT: tuple[Any, ...] = (None, (), {}, [])


@runtime_checkable
class ReadsFiles(Protocol):
    """A component that reads files of the user's, and can name the option that is wrong before they are hashed."""

    def check_files(self) -> None:
        """Raise QuantbenchError for a file or folder that is missing."""
        ...


@runtime_checkable
class OwnIdentity(Protocol):
    """A component whose options are not what decides its numbers, but what it finds by them."""

    def identity(self) -> dict[str, Any]:
        """What decides its numbers, as plain JSON. Raises QuantbenchError for what cannot be found."""
        ...


def identity(value: Any) -> Any:
    """Plain JSON of a component's resolved constructor arguments, its defaults included, descriptions left out.

    An option that is null or empty stands for nothing and is left out, too: so a new kind of part, null where it is not
    used, does not make finished runs new. A local path counts by the sha256 of what lies there, not by its name, and a
    class from outside this package by its source, too. Raises QuantbenchError if nothing lies at a path.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, ReadsFiles):
            value.check_files()
        if isinstance(value, OwnIdentity):
            own: type = type(value)
            return {**_class_identity(own), **value.identity()}
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in DESCRIPTIVE}
        given = {name: identity(field) for name, field in fields.items() if field not in ABSENT}
        return {**_class_identity(type(value)), **given}
    if isinstance(value, dict):
        return {str(k): identity(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [identity(v) for v in value]
    if isinstance(value, Path):
        return f"sha256:{hash_path(value)}"
    return value


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
    """The identity of a run, from those of its parts. Without calibration data (None) no seed or replicate counts."""
    parts: dict[str, Any] = {"numerics_version": NUMERICS_VERSION, "model": model, "quantizer": recipe}
    return parts if calib is None else parts | {"calib": calib, "seed": seed, "replicate": replicate}
