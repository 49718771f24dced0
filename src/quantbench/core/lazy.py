"""Modules that are loaded when they are first used.

Composition imports every component to read the types of its options; a library that takes seconds to load waits until
a component computes.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for the module of its name and imports that at the first access to an attribute."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__name__), attribute)


def lazy_module(name: str) -> ModuleType:
    """A module whose code runs at the first attribute access."""
    return _LazyModule(name)
