"""Two runs right or wrong on the same independent items: what counts are the items on which they disagree.

The normal interval of a paired difference of shares has no width where no item is discordant, and covers far less than
it says where few are; these two do not.
"""

from __future__ import annotations

import math

from scipy.special import bdtr, ndtri

from quantbench.metrics.errors import LEVEL


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """The two-sided mid-p McNemar test of `gained` against `lost` discordant items (Fagerland et al. 2013).

    Given their number n, either count is binomial(n, 1/2) if the runs are equally good: p is twice the smaller tail, of
    which the observed count's own probability counts half. 1 without discordant items.
    """
    n, fewer = gained + lost, min(gained, lost)
    if gained == lost:  # both tails, with half of what was observed in each, are everything
        return 1.0
    tail, point = float(bdtr(fewer, n, 0.5)), math.comb(n, fewer) / (1 << n)
    return min(1.0, 2 * tail - point)


def bonett_price(gained: int, lost: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of (gained - lost) / n over n paired items (Bonett & Price 2012): one item added to each count.

    `bonett_price_error` ± z of its standard errors. Raises ValueError if more items are discordant than there are.
    """
    centre, stderr = bonett_price_error(gained, lost, n)
    half = float(ndtri((1 + level) / 2)) * stderr
    return max(-1.0, centre - half), min(1.0, centre + half)


def bonett_price_error(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The centre of that interval and its standard error, which is never 0.

    With p = (gained + 1) / (n + 2) and q = (lost + 1) / (n + 2): p - q and sqrt((p + q - (p - q)^2) / (n + 2)).
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1:
        raise ValueError(f"{gained} and {lost} discordant items of {n}")
    p, q = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    return p - q, math.sqrt((p + q - (p - q) ** 2) / (n + 2))
