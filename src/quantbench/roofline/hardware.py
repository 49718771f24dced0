"""What a machine can do: bytes and operations a second, as its maker states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbench.core.build import unknown_key
from quantbench.core.errors import ConfigError

RATES = ("fp16", "int8", "fp8", "fp4")
"""Kinds of arithmetic: 16-bit floats (fp16 and bf16 alike), 8-bit integers, 8-bit and 4-bit floats."""

REQUIRED = ("bandwidth_gb_s", "tflops", "memory_gb", "source")
KEYS = (*REQUIRED, "interconnect_gb_s", "description")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One chip, or one processor.

    bandwidth     bytes/s of its main memory
    rates         dense operations/s by kind of arithmetic; a multiplication and its addition are two
    memory        bytes
    interconnect  bytes/s in one direction between chips; None: one chip only
    source        where the numbers stand
    """

    name: str
    bandwidth: float
    rates: Mapping[str, float]
    memory: float
    source: str
    interconnect: float | None = None
    description: str = ""

    def rate(self, arithmetic: str) -> float:
        """Operations/s of a kind of arithmetic; of 16-bit floats where the chip has none of that kind."""
        return self.rates.get(arithmetic, self.rates["fp16"])

    def ridge(self, arithmetic: str = "fp16") -> float:
        """Operations a byte above which arithmetic, not memory, is the bound."""
        return self.rate(arithmetic) / self.bandwidth


def hardware(name: str, entry: Mapping[str, Any]) -> Hardware:
    """Hardware from an entry of the catalogue, conf/hardware/catalogue.yaml, or of a file of the user's.

    Raises ConfigError for a key that is missing or unknown, and for a number that is not above 0.
    """
    where = f"hardware {name}"
    if wrong := [key for key in entry if key not in KEYS]:
        raise ConfigError(unknown_key(f"{where}.{wrong[0]}", list(KEYS)))
    if missing := [key for key in REQUIRED if entry.get(key) is None]:
        raise ConfigError(f"{where}: {missing[0]} is missing; an entry has {', '.join(REQUIRED)}")
    rates = entry["tflops"]
    if not isinstance(rates, Mapping) or "fp16" not in rates:
        raise ConfigError(
            f"{where}.tflops={rates!r}: expected a mapping with fp16 and, where it has them, int8, fp8, fp4"
        )
    if wrong := [key for key in rates if key not in RATES]:
        raise ConfigError(unknown_key(f"{where}.tflops.{wrong[0]}", list(RATES)))
    link = entry.get("interconnect_gb_s")
    return Hardware(
        name=name,
        bandwidth=_positive(f"{where}.bandwidth_gb_s", entry["bandwidth_gb_s"]) * 1e9,
        rates={kind: _positive(f"{where}.tflops.{kind}", rate) * 1e12 for kind, rate in rates.items()},
        memory=_positive(f"{where}.memory_gb", entry["memory_gb"]) * 1e9,
        interconnect=None if link is None else _positive(f"{where}.interconnect_gb_s", link) * 1e9,
        source=str(entry["source"]),
        description=str(entry.get("description", "")),
    )


def _positive(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{key}={value!r}: expected a number above 0")
    return float(value)
