"""Paths as options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator


def _from_yaml(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


LocalPath = Annotated[Path, BeforeValidator(_from_yaml)]
"""A file or folder on this machine; a yaml gives it as a string, in which a leading ~ is the home folder."""
