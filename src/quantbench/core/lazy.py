"""Modules that are loaded when they are first used.

Composition imports every component to read the types of its options; a library that takes seconds to load waits until
a component computes.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, cast


class _LazyModule:
    """Stands for the module `name`, which is imported at the first access to an attribute."""

    __slots__ = ("__dict__", "_module_name")  # the name must survive the change of __dict__

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self._module_name)
        self.__dict__ = module.__dict__  # from now on an access is a plain look-up of the module's own values
        return getattr(module, attribute)


def lazy_module(name: str) -> ModuleType:
    """A module whose code runs at the first attribute access.

    ImportError is raised there, too. Type checkers are shown the module itself:

        if TYPE_CHECKING:
            import torch
        else:
            torch = lazy_module("torch")
    """
    return cast("ModuleType", _LazyModule(name))
