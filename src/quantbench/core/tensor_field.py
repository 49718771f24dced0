"""The type of a component's field that holds a tensor, checked without importing torch before there is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import PlainValidator

if TYPE_CHECKING:
    import torch

    TensorField: TypeAlias = torch.Tensor
else:

    def _tensor(value: Any) -> Any:
        """The value; ValueError if it is no tensor, which nothing can be while torch is not imported."""
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            raise ValueError(f"a tensor is needed, not {type(value).__name__}")
        return value

    TensorField = Annotated[Any, PlainValidator(_tensor)]
