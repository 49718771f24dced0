"""Paths as options."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from quantbench.core.errors import ConfigError


def local_path(text: str) -> Path:
    """The path a text names; a leading ~ is the home folder. Raises ConfigError for a home that there is not."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: there is no such home folder") from error


def outputs_folder() -> Path:
    """Where results lie unless a command says otherwise: QUANTBENCH_OUTPUTS, else outputs/ in the working folder."""
    return local_path(os.environ.get("QUANTBENCH_OUTPUTS") or "outputs")


def _from_yaml(value: Any) -> Any:
    if value == "":
        raise ValueError("expected a file or folder, found an empty text")
    try:
        return local_path(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _output_folder(value: Any) -> Any:
    return outputs_folder() if value == "" else _from_yaml(value)


LocalPath = Annotated[Path, BeforeValidator(_from_yaml)]
"""A file or folder on this machine; a yaml gives it as a string, in which a leading ~ is the home folder."""

OutputFolder = Annotated[Path, BeforeValidator(_output_folder)]
"""The same for results; an empty text stands for the default, as an empty environment variable does."""


def stem(path: str) -> str:
    """The last part of a path without a file's ending; "model-0.5B" stays whole."""
    return re.sub(r"(?<=.)\.[a-z]+$", "", Path(path).name) or path


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each path and a name for it, safe as a file name: its stem, or as much of the path as tells all of them apart."""
    parts = {path: Path(path).parts for path in paths}
    names = {path: _safe(stem(path)) for path in parts}
    for depth in range(1, 1 + max(map(len, parts.values()), default=0)):
        if len(set(names.values())) == len(names):
            break
        names = {path: _safe("_".join(part.strip("/") for part in found[-depth:])) for path, found in parts.items()}
    if len(set(names.values())) < len(names):  # of letters that a file name of ours does not hold
        names = {path: f"{_safe(stem(path))}_{number}" for number, path in enumerate(parts, start=1)}
    return names


def _telling(path: str) -> str:
    """The stem of a path; with the folder's name before it for `model`, as every export calls its file."""
    last, folder = stem(path), Path(path).parent.name
    return f"{folder}_{last}" if last == "model" and Path(path).suffix and folder else last


def is_safe(name: str) -> bool:
    """Whether a name can stand as it is where `short_names` gives names."""
    return _safe(name) == name


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", name).strip("-.") or "text"


def brief(override: str) -> str:
    """An override "key=value" whose values that are paths are shortened to their stems; for names and labels only."""
    key, equals, value = override.partition("=")
    is_path = key.rpartition(".")[2].endswith("path")
    plain = [one.strip().strip("'\"") for one in value.split(",")]
    stems = [_telling(one) if one and (is_path or "/" in one) else one for one in plain]
    return f"{key}{equals}{','.join(stems)}" if stems != plain else override
