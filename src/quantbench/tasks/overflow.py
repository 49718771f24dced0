"""What is said when a model's outputs overflow."""

from __future__ import annotations

from quantbench.core.errors import ModelError


def overflowed(where: str, what: str) -> ModelError:
    """The error for a result that is not finite; `where` names task and item, `what` the number."""
    return ModelError(
        f"{where}: {what} is not finite, because the model's outputs overflowed. Quantization to few bits can break a "
        "model like this: use more bits; or, if it happens in full precision, another model.dtype (float16 overflows "
        "first)."
    )
