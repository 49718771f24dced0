"""One node of a composed configuration: plain values, and the component they describe."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from quantbench.config.identity import identity
from quantbench.core.build import build
from quantbench.core.errors import ConfigError
from quantbench.core.hashing import digest

T = TypeVar("T")

_PART = re.compile(r"^calib\.mixed\.([^.=]+)\.set\b")
_INSIDE = re.compile(r"^(calib(?:=[^.:]+)?|eval\.tasks\.[^.=:]+)(?:\.(?:source|data|origin))+(?=[.:=])")
"""Keys of components that a data set's flat keys, and those of a mixture's part, are made into."""


class ConfigNode(Generic[T]):
    """Plain values with `_target_`; the component, its identity and digest are made of them when they are asked for.

    Cells of a grid share their parts: two parts are equal if they are the same object.

    plain     resolved configuration: what is frozen when a cell is submitted
    expected  the class or protocol that the component must be of
    key       where the node stands in the configuration, for messages
    """

    def __init__(self, plain: dict[str, Any], expected: Callable[..., T], key: str) -> None:
        self.plain, self.expected, self.key = plain, expected, key

    @cached_property
    def component(self) -> T:
        """What the values describe.

        Raises ConfigError for an option that is unknown, missing or out of range, by the key that a command line has.
        """
        try:
            return build(self.plain, self.expected, self.key)
        except ConfigError as error:
            raise ConfigError(_INSIDE.sub(r"\1", _PART.sub(r"calib=\1", str(error)))) from error

    @cached_property
    def identity(self) -> Any:
        """See quantbench.config.identity."""
        return identity(self.component)

    @cached_property
    def digest(self) -> str:
        """Equal for parts whose components are the same thing."""
        return digest(self.identity)
