"""Stored weights of other versions."""

from __future__ import annotations

from typing import Any

import pytest

from quantbench.core.errors import StoreError
from quantbench.pipeline.artifact import SCHEMA, Artifact


def test_weights_of_another_schema_are_refused_with_a_remedy() -> None:
    tensors, spec = Artifact().to_tensors()
    assert Artifact.from_tensors(tensors, spec).weights == {}
    unnumbered: dict[str, Any] = {"weights": {}, "ops": []}
    for other, found in ((unnumbered, "1"), (spec | {"schema": SCHEMA + 1}, str(SCHEMA + 1))):
        with pytest.raises(StoreError, match=f"schema {found}: .* reads schema {SCHEMA}; delete the run's"):
            Artifact.from_tensors(tensors, other)
