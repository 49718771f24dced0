"""What a recipe costs: the axes against which its loss is shown."""

from __future__ import annotations

from dataclasses import dataclass

from quantbench.core.build import unknown_choice
from quantbench.core.errors import ConfigError


@dataclass(frozen=True)
class Axis:
    """A cost.

    column    of results.csv
    title     of a figure's axis;  head: of a table, its first word capital;  unit: behind a number
    form      how a number of it is written
    modelled  whether it is computed from the model's configuration;  needs_hardware: and from a machine's numbers
    measured  what `quantbench measure` measures of it; None: it is not measured
    """

    name: str
    column: str
    title: str
    head: str
    unit: str
    modelled: bool = True
    needs_hardware: bool = True
    form: str = ".4g"
    measured: str | None = None


BITS = Axis("bits", "effective_bits", "bits per quantized weight", "Bits", "bits per quantized weight", False, False)

AXES = {
    axis.name: axis
    for axis in (
        BITS,
        Axis(
            "bytes", "modelled_weight_bytes", "bytes of all weights", "Bytes", "bytes of weights", True, False, ",.0f"
        ),
        Axis(
            "modelled_decode_ms",
            "modelled_decode_ms",
            "modelled decode, ms a token",
            "Modelled decode time",
            "ms a token",
        ),
        Axis(
            "modelled_prefill_ms",
            "modelled_prefill_ms",
            "modelled prefill, ms",
            "Modelled prefill time",
            "ms of prefill",
        ),
        *(
            Axis(f"measured_{what}_ms", f"measured_{what}_ms", title, head, unit, False, False, measured=what)
            for what, title, head, unit in (
                ("decode", "measured decode, ms a token", "Measured decode time", "ms a token"),
                ("prefill", "measured prefill, ms", "Measured prefill time", "ms of prefill"),
            )
        ),
    )
}


def axis_of(name: str) -> Axis:
    """The axis of that name. Raises ConfigError, with those there are."""
    if name not in AXES:
        raise ConfigError(f"--x {unknown_choice('x', name, list(AXES))}")
    return AXES[name]
