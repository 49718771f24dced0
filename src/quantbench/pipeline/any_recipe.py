"""What every option of `quantizer=` is: a recipe that quantizes, or a checkpoint that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AnyRecipe(Protocol):
    """A way to have a quantized model. Implementations are components."""

    @property
    def about(self) -> dict[str, Any]:
        """What is said of it; decides no number."""
        ...

    @property
    def data_free(self) -> bool:
        """Whether it reads no calibration data: then the run is the same whatever calibration set is chosen."""
        ...

    @property
    def full_precision(self) -> bool:
        """Whether nothing is quantized or rewritten."""
        ...

    @property
    def rewrites(self) -> bool:
        """Whether weights are more than the original ones plus an error."""
        ...

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise ConfigError for an option that fits none of a model's layers."""
        ...

    def expected_bits(self, width: int) -> float:
        """About how many bits each weight of a layer [width, width] will take."""
        ...
