"""Estimates with error bars from per-item values.

An item is one window of text (or one question). Every estimate carries its influence values e_i: to first order, its
error is the mean of the e_i, which have mean 0 (the delta method). For independent items the standard error is
sd(e) / sqrt(n); where items come in clusters, the totals of the e_i in each give it (quantbench.metrics.totals), and
the differences a_i - b_i that of a difference of two runs on the same items: what is common to both cancels.

The errors say how far the number would move with other test items. How far it would move with another calibration
draw or seed is a separate source of variance, which only replicated runs show: neither contains the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


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


def root_mean_square(squares: Values, weights: Values) -> Estimate:
    """sqrt(S), S the mean over tokens of per-item mean squares: e_i = e_i(S) / (2 sqrt(S)); 0 where S is 0."""
    mean_square = weighted_mean(squares, weights)
    value = math.sqrt(mean_square.value)
    return Estimate(value, mean_square.influence / (2 * value) if value > 0 else np.zeros(mean_square.n))


def macro_mean(values: Values, strata: Sequence[str]) -> Estimate:
    """The mean over K strata of the mean in each: e_i = (n / (K n_k)) (x_i - mean_k), n_k items in i's stratum."""
    _, stratum, counts = np.unique(np.array(strata), return_inverse=True, return_counts=True)
    means = np.bincount(stratum, weights=_nonempty(values)) / counts
    scale = len(values) / (len(counts) * counts)
    return Estimate(float(means.mean()), scale[stratum] * (values - means[stratum]))


def bits_per_byte(nll: Values, n_tokens: Values, n_bytes: Values) -> Estimate:
    """sum(nll n_tokens) / (ln 2 sum(n_bytes)): comparable between tokenizers."""
    return ratio(nll * n_tokens / math.log(2), n_bytes)


def macro_f1(gold: Values, predicted: Values, n_labels: int) -> Estimate:
    """Mean over the labels 0 .. n_labels - 1 of F1_c = 2 TP_c / (predicted_c + gold_c), ratios over the same items.

    All labels count, whatever occurs, so that two runs average over the same ones: F1_c is 0 for a label that is
    neither right nor predicted anywhere. Raises ValueError for a label outside of them.
    """
    if not np.isin(np.union1d(_nonempty(gold), predicted), np.arange(n_labels)).all():
        raise ValueError(f"a label is a whole number from 0 to {n_labels - 1}")
    total, influence = 0.0, np.zeros(len(gold))
    for label in range(n_labels):
        is_gold, is_predicted = (gold == label).astype(np.float64), (predicted == label).astype(np.float64)
        if (occurs := is_gold + is_predicted).any():
            part = ratio(2 * is_gold * is_predicted, occurs)
            total, influence = total + part.value, influence + part.influence
    return Estimate(total / n_labels, influence / n_labels)


def _nonempty(values: Values) -> Values:
    if len(values) == 0:
        raise ValueError("an estimate needs at least one item")
    return values
