"""Worlds of known truth: scores of recipes under calibration draws, on items in clusters, as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantbench.metrics import statistics
from quantbench.metrics.statistics import Estimate, Values


@dataclass(frozen=True)
class World:
    """Item i of cluster c under draw d scores truth + draw[d] + cluster[c] + both[d, c] + item[i] + rest[d, i].

    n_clusters, per_cluster  how many items there are
    icc        share of the items' variance (1) that lies between clusters
    draw_sd    of the draws, which shift every item alike
    skewed     exponential items and clusters instead of normal ones
    """

    n_clusters: int
    per_cluster: int = 4
    icc: float = 0.4
    draw_sd: float = 0.3
    skewed: bool = False
    truth: float = 0.0

    @property
    def clusters(self) -> list[str]:
        return [f"{i // self.per_cluster:04}" for i in range(self.n_clusters * self.per_cluster)]

    def shared(self, rng: np.random.Generator) -> Values:
        """What the items [n] have in common under all draws: the hardness of clusters and items."""
        cluster = self._sample(rng, self.n_clusters) * np.sqrt(self.icc)
        item = self._sample(rng, self.n_clusters * self.per_cluster) * np.sqrt(1 - self.icc)
        found: Values = np.repeat(cluster, self.per_cluster) + item
        return found

    def draws(self, rng: np.random.Generator, n_draws: int, shared: Values) -> list[Estimate]:
        """The scores of n_draws draws on the same items."""
        found = []
        for _ in range(n_draws):
            both = np.repeat(self._sample(rng, self.n_clusters), self.per_cluster) * 0.2
            rest = self._sample(rng, len(shared)) * 0.3
            own = self.draw_sd * rng.normal()
            found.append(statistics.mean(self.truth + own + shared + both + rest))
        return found

    def _sample(self, rng: np.random.Generator, n: int) -> Values:
        return rng.exponential(1.0, n) - 1 if self.skewed else rng.normal(0.0, 1.0, n)


def discordant(rng: np.random.Generator, n: int, share: float, excess: float = 0.0) -> tuple[int, int]:
    """Items gained and lost among n, of which `share` are discordant; (gained - lost) / n is `excess`, on average."""
    gained, lost, _ = rng.multinomial(n, [(share + excess) / 2, (share - excess) / 2, 1 - share])
    return int(gained), int(lost)
