"""Estimates with error bars from per-item values, and paired differences between two runs.

An item is one window of text (or one question). All formulas take the items as independent draws from their
distribution; windows cut from one document are not quite, so with few long documents the errors are too small.
The errors say how far the number would move with other test items. How far it would move with another calibration
draw or seed is a separate source of variance, which only replicated runs show: neither contains the other.

Every estimate carries its influence values e_i: to first order, its error is the mean of the e_i, which have mean 0
(the delta method). So the standard error is sd(e) / sqrt(n), and that of a difference of two estimates over the same
items is sd(a_i - b_i) / sqrt(n): pairing cancels what is common to both, such as how hard an item is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of the confidence intervals."""


@dataclass(frozen=True)
class Estimate:
    """A value, and the influence [n] of each item on it: mean 0, in the unit of the value."""

    value: float
    influence: Values

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.influence)

    @property
    def stderr(self) -> float | None:
        """sd(influence) / sqrt(n) with n - 1 in the variance; None for n = 1."""
        return None if self.n < 2 else float(np.std(self.influence, ddof=1) / math.sqrt(self.n))


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over n items, and its confidence interval; no error and no interval for n = 1."""

    difference: float
    stderr: float | None
    lower: float | None
    upper: float | None
    n: int


def mean(values: Values) -> Estimate:
    """The mean over items: e_i = x_i - mean."""
    value = float(np.mean(_nonempty(values)))
    return Estimate(value, values - value)


def ratio(numerator: Values, denominator: Values) -> Estimate:
    """R = sum(a) / sum(b), both measured on the same items: e_i = (a_i - R b_i) / mean(b)."""
    value = float(np.sum(_nonempty(numerator)) / np.sum(denominator))
    return Estimate(value, (numerator - value * denominator) / float(np.mean(denominator)))


def weighted_mean(values: Values, weights: Values) -> Estimate:
    """Mean over tokens of per-item means: weights are token counts. With equal weights it is `mean`."""
    return ratio(values * weights, weights)


def perplexity(nll: Values, n_tokens: Values) -> Estimate:
    """exp(L), L the mean over tokens of the negative log-likelihood in nats: e_i = exp(L) e_i(L).

    nll [n] is the mean of each window; with windows of equal token counts L is the mean over windows.
    Raises ValueError where exp(L) is too large for a float.
    """
    loss = weighted_mean(nll, n_tokens)
    try:
        value = math.exp(loss.value)
    except OverflowError as error:
        raise ValueError(f"a loss of {loss.value:.6g} nats per token has no representable perplexity") from error
    return Estimate(value, value * loss.influence)


def word_perplexity(nll: Values, n_tokens: Values, n_words: Values) -> Estimate:
    """exp(L), L the negative log-likelihood in nats per word: nll [n] is the mean per token of each text."""
    loss = ratio(nll * n_tokens, n_words)
    try:
        value = math.exp(loss.value)
    except OverflowError as error:
        raise ValueError(f"a loss of {loss.value:.6g} nats per word has no representable perplexity") from error
    return Estimate(value, value * loss.influence)


def macro_mean(values: Values, strata: Sequence[str]) -> Estimate:
    """The mean over K strata of the mean in each: e_i = (n / (K n_k)) (x_i - mean_k), n_k items in i's stratum."""
    _, place, counts = np.unique(np.array(strata), return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=_nonempty(values)) / counts
    scale = len(values) / (len(counts) * counts)
    return Estimate(float(means.mean()), scale[place] * (values - means[place]))


def bits_per_byte(nll: Values, n_tokens: Values, n_bytes: Values) -> Estimate:
    """sum(nll n_tokens) / (ln 2 sum(n_bytes)): comparable between tokenizers."""
    return ratio(nll * n_tokens / math.log(2), n_bytes)


def macro_f1(gold: Values, predicted: Values) -> Estimate:
    """Mean over the labels that occur of F1_c = 2 TP_c / (predicted_c + gold_c), each a ratio over the same items."""
    labels = np.union1d(_nonempty(gold), predicted)
    parts = []
    for label in labels:
        is_gold, is_predicted = (gold == label).astype(np.float64), (predicted == label).astype(np.float64)
        parts.append(ratio(2 * is_gold * is_predicted, is_gold + is_predicted))
    influence = np.mean([part.influence for part in parts], axis=0)
    return Estimate(float(np.mean([part.value for part in parts])), influence)


def align(ids: Sequence[str], others: Sequence[str]) -> NDArray[np.intp]:
    """The order that brings `others` to `ids`: others[order[i]] == ids[i].

    Raises ValueError, naming some items, if the two are not the same set of unique ids.
    """
    position = {item: index for index, item in enumerate(others)}
    different = sorted(set(ids) ^ position.keys())
    if different or len(ids) != len(others) or len(position) != len(others):
        raise ValueError(
            f"paired items must be the same: {len(ids)} against {len(others)}, of which {len(different)} occur on one "
            f"side only {different[:3]}"
        )
    return np.array([position[item] for item in ids], dtype=np.intp)


def compare(candidate: Estimate, baseline: Estimate, level: float = LEVEL) -> Comparison:
    """The difference candidate - baseline over the same items in the same order; two-sided t interval with n - 1 df.

    Raises ValueError if the numbers of items differ.
    """
    paired = Estimate(candidate.value - baseline.value, _paired(candidate.influence, baseline.influence))
    half = _half_width(paired, level)
    lower, upper = (None, None) if half is None else (paired.value - half, paired.value + half)
    return Comparison(paired.value, paired.stderr, lower, upper, paired.n)


def compare_ratio(candidate: Estimate, baseline: Estimate, level: float = LEVEL) -> Comparison:
    """The ratio candidate / baseline (of two perplexities: how many times worse), paired like `compare`.

    e_i = R (a_i / A - b_i / B). The interval is taken on log R and mapped back, so that it is never negative.
    """
    relative = _paired(candidate.influence / candidate.value, baseline.influence / baseline.value)
    logarithm = Estimate(math.log(candidate.value / baseline.value), relative)
    value = candidate.value / baseline.value
    half = _half_width(logarithm, level)
    if half is None or logarithm.stderr is None:
        return Comparison(value, None, None, None, logarithm.n)
    return Comparison(value, value * logarithm.stderr, value * math.exp(-half), value * math.exp(half), logarithm.n)


def _nonempty(values: Values) -> Values:
    if len(values) == 0:
        raise ValueError("an estimate needs at least one item")
    return values


def _paired(candidate: Values, baseline: Values) -> Values:
    if len(candidate) != len(baseline):
        raise ValueError(f"paired estimates need the same items: {len(candidate)} against {len(baseline)}")
    return candidate - baseline


def _half_width(estimate: Estimate, level: float) -> float | None:
    if estimate.stderr is None:
        return None
    return float(stdtrit(estimate.n - 1, (1 + level) / 2)) * estimate.stderr  # quantile of Student's t
