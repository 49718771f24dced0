"""Roundings around another rounding: what they have in common."""

from __future__ import annotations

from typing import Any

from quantbench.rounding.base import Rounding


class Wrapper:
    """Base of a rounding with an option `inner`: it reads what that reads, and is refused what that is refused."""

    inner: Rounding

    @property
    def needs(self) -> frozenset[str]:
        """The statistics the inner rounding reads."""
        return self.inner.needs

    def refusal(self, recipe: Any) -> str | None:
        """What the inner rounding says."""
        return self.inner.refusal(recipe)
