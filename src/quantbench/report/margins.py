"""Equivalence margins that a user states: what difference of a metric does not matter."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from quantbench.core.errors import ConfigError
from quantbench.metrics import metrics

LARGEST_LOG = 0.7
"""A margin of a metric's logarithm above this would call one twice as large equivalent."""


def check_margins(margins: Mapping[str, float], known: Collection[str]) -> None:
    """Raise ConfigError for what is no number above 0, seems to be in another unit, or is of no known metric."""
    for name, margin in margins.items():
        if known and name not in known:
            names = ", ".join(sorted(known))
            raise ConfigError(f"margin {name}={margin}: no score has this metric. There are: {names}")
        unit = "nats, of its logarithm: 0.01 is about 1 %" if metrics.is_log_scale(name) else metrics.unit(name)
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < math.inf:
            raise ConfigError(f"margin {name}={margin}: a margin is a positive number, here in {unit}")
        if metrics.is_log_scale(name) and margin > LARGEST_LOG:
            raise ConfigError(
                f"margin {name}={margin:g}: a {name} {math.exp(margin):.3g} times as large would be called equivalent. "
                f"It is compared by its logarithm: give the margin in {unit}"
            )
        if metrics.unit(name).startswith("share") and margin >= 1:
            raise ConfigError(f"margin {name}={margin:g}: a difference of shares is below 1; one point of 100 is 0.01")


def margins_of(texts: Sequence[str]) -> dict[str, float]:
    """Margins from METRIC=NUMBER. Raises ConfigError for what is none."""
    margins: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            margins[name] = float(value)
        except ValueError:
            margins[name] = math.nan
        if math.isnan(margins[name]):
            raise ConfigError(f"--margin {text}: give METRIC=NUMBER, for example kl=0.01")
    return margins
