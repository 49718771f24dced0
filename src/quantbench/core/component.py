"""What makes a class selectable by `_target_` in a yaml: a frozen dataclass whose fields are checked strictly.

A component states its options as fields with types and ranges (`Annotated[int, Field(ge=2, le=8)]`,
`Literal["minmax", "mse"]`). Unknown names, wrong types and values out of range are refused when it is built,
before any expensive work. There is no registry: the import path in the yaml is the registry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, dataclasses.field))
def component(cls: type[T]) -> type[T]:
    """Make `cls` a component: frozen, keyword-only, every field checked for type and range."""
    make: Callable[[type[T]], Any] = checked_dataclass(config=STRICT, frozen=True, kw_only=True)
    built: type[T] = make(cls)
    return built


class Part:
    """Base of the parts of a recipe: each declares which calibration statistics it reads.

    `needs` holds names of `quantbench.core.input_stats.LinearStats` fields. A recipe whose parts need nothing is
    data-free: it is the same run whatever calibration set is chosen. A part that reads the calibration sequences
    themselves (a rounding that learns) needs "block".
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def refusal(self, recipe: Any) -> str | None:  # noqa: ARG002 - for parts that combine with everything
        """Why this part cannot be combined with the others of a `quantbench.pipeline.recipe.Recipe`; None if it can."""
        return None
