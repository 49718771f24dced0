"""How often intervals cover the truth, and how often a word of a comparison is wrong, where the truth is known.

    python benchmarks/intervals.py [--repeats 2000]      prints the tables of docs/statistics.md, in minutes on one core

Items lie in clusters, scores vary with items, clusters, calibration draws and combinations of them, as tests/sampled.py
says. Rows differ in the number of draws and clusters and in the shape of the distributions.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from quantbench.metrics.clusters import cluster_error
from quantbench.metrics.draws import PseudoValues, crossed_error, gap_error, mean_squares, pseudo_values
from quantbench.metrics.errors import Error
from quantbench.metrics.multiplicity import holm
from quantbench.metrics.paired_shares import bonett_price, mcnemar_mid_p
from quantbench.metrics.statistics import Estimate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from sampled import World, discordant

N_RECIPES = 5
DRAWS, CLUSTERS = (1, 3, 5), (5, 8, 12, 30)


def sampled(world: World, rng: np.random.Generator, n_draws: int, n_sets: int = 1) -> list[list[Estimate]]:
    """Draws of several recipes, or of several calibration sets, on the same items."""
    shared = world.shared(rng)
    return [world.draws(rng, n_draws, shared) for _ in range(n_sets)]


def own_error(y: PseudoValues, draws: list[Estimate], clusters: list[str]) -> Error:
    """Over draws and clusters; with one draw, over clusters alone."""
    if len(draws) > 1:
        return crossed_error(y)
    found = cluster_error(draws[0], clusters)
    assert found is not None
    return found


def covers(world: World, rng: np.random.Generator, n_draws: int) -> tuple[bool, bool]:
    """Whether the interval of one recipe's score holds the truth: as the items alone say, and as we say."""
    (draws,) = sampled(world, rng, n_draws)
    y = pseudo_values(draws, world.clusters)
    low, high = own_error(y, draws, world.clusters).interval(float(y.mean()))
    items = draws[0]
    assert items.stderr is not None
    alone = Error.of(items.stderr, items.n - 1).interval(items.value)
    return alone[0] <= world.truth <= alone[1], low <= world.truth <= high


def recipe_pairs(world: World, rng: np.random.Generator, n_draws: int) -> list[tuple[float, Error]]:
    """Differences of equally good recipes, all pairs, on the same draws and items."""
    recipes = [pseudo_values(draws, world.clusters) for draws in sampled(world, rng, n_draws, N_RECIPES)]
    pairs = [one - other for one, other in itertools.combinations(recipes, 2)]
    return [(float(y.mean()), crossed_error(y)) for y in pairs]


def words(world: World, rng: np.random.Generator, n_draws: int) -> tuple[bool, bool, bool]:
    """A false finding for one pair of recipes; for any pair after Holm; a false equivalence at the margin itself."""
    pairs = recipe_pairs(world, rng, n_draws)
    p_values = [error.p_value(value) for value, error in pairs]
    value, error = pairs[0]
    margin = 0.5
    return p_values[0] <= 0.05, min(holm(p_values)) <= 0.05, error.equivalence_p(value + margin, margin) <= 0.05


def false_gap(world: World, rng: np.random.Generator, n_draws: int) -> tuple[bool]:
    """Whether a transfer gap is found between two calibration sets that are equally good."""
    a, b = (pseudo_values(draws, world.clusters) for draws in sampled(world, rng, n_draws, 2))
    return (gap_error(a, b).p_value(float(a.mean() - b.mean())) <= 0.05,)


def tails(world: World, rng: np.random.Generator, n_draws: int) -> tuple[bool, bool]:
    """Whether p of a true null hypothesis is at most 0.005: of one t with Satterthwaite's df, and ours."""
    (draws,) = sampled(world, rng, n_draws)
    y = pseudo_values(draws, world.clusters)
    squares, n_clusters, value = mean_squares(y), y.shape[1], float(y.mean())
    larger, df = max((squares.draws, n_draws - 1.0), (squares.clusters, n_clusters - 1.0))
    total = squares.draws + squares.clusters - squares.rest
    if total > larger:
        of_rest = squares.rest**2 / ((n_draws - 1) * (n_clusters - 1))
        df = total**2 / (squares.draws**2 / (n_draws - 1) + squares.clusters**2 / (n_clusters - 1) + of_rest)
    one_t = Error.of(math.sqrt(max(total, larger) / y.size), df)
    return one_t.p_value(value) <= 0.005, crossed_error(y).p_value(value) <= 0.005


def rates(
    measured: Callable[[World, np.random.Generator, int], tuple[bool, ...]], world: World, n_draws: int, repeats: int
) -> list[float]:
    """The share of repeats in which each of the measured is true."""
    rng = np.random.default_rng([n_draws, world.n_clusters])
    return [float(rate) for rate in np.mean([measured(world, rng, n_draws) for _ in range(repeats)], axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    rows = []
    for skewed, n_draws, n_clusters in itertools.product((False, True), DRAWS, CLUSTERS):
        world = World(n_clusters=n_clusters, skewed=skewed)
        row = ["skewed" if skewed else "normal", n_draws, n_clusters, *rates(covers, world, n_draws, repeats)]
        if n_draws > 1:
            row += [*rates(words, world, n_draws, repeats), *rates(false_gap, world, n_draws, repeats)]
        rows.append(row)
    one_draw = replace(World(n_clusters=30), draw_sd=0.0)
    print(
        f"{repeats} repeats a row, intra-cluster correlation {one_draw.icc}, {one_draw.per_cluster} items a cluster\n"
    )
    header = ["scores", "draws", "clusters", "covers: items alone", "covers", "false finding", "any of 10, Holm"]
    print(tabulate(rows, [*header, "false equivalence", "false gap"], tablefmt="github", floatfmt=".3f"))
    apart = [
        [n_draws, n, *rates(tails, World(n_clusters=n, draw_sd=0.6), n_draws, repeats)]
        for n_draws, n in itertools.product((3, 5), (12, 30))
    ]
    print("\np at most 0.005 where the null hypothesis is true; the draws' shifts vary as cluster means do\n")
    print(tabulate(apart, ["draws", "clusters", "one t, Satterthwaite", "sum of sources"], tablefmt="github"))
    shares = []
    for n, share in itertools.product((50, 200, 1000), (0.02, 0.1)):
        rng = np.random.default_rng(n)
        counts = [discordant(rng, n, share) for _ in range(repeats)]
        covered = np.mean(
            [low <= 0 <= high for low, high in (bonett_price(gained, lost, n) for gained, lost in counts)]
        )
        shares.append([n, share, covered, np.mean([mcnemar_mid_p(*pair) <= 0.05 for pair in counts])])
    print()
    print(tabulate(shares, ["items", "discordant", "interval covers", "false finding"], tablefmt="github"))


if __name__ == "__main__":
    main()
