"""Collecting the statistics of the inputs of groups of weights while calibration sequences run through a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.core.input_stats import LinearStats
from quantbench.models.experts import run_all_experts
from quantbench.models.groups import InputGroup, watch_slices
from quantbench.models.handle import Removable
from quantbench.pipeline.capture import BlockCall, run_block
from quantbench.pipeline.sample import RowSample

_ROWS = 192  # of a product of inputs with themselves that are made at once: fewer multiply less, and slower
STATISTICS = frozenset({"hessian", "absmax", "mean_abs", "minimum", "maximum", "rows"})


class StatsAccumulator:
    """Running statistics over X [tokens, in]; see LinearStats for the fields."""

    def __init__(self, in_features: int, needs: frozenset[str]) -> None:
        self._needs = needs
        self._n = 0
        self._in_features = in_features
        self._sums: dict[str, Tensor] = {}
        self._rows = RowSample()

    def add(self, x: Tensor) -> None:
        """Add inputs [..., in]. Raises ValueError if they hold NaN or infinity."""
        x = x.detach().reshape(-1, self._in_features).float()
        if not len(x):
            return
        if not all_finite(x):
            raise ValueError("NaN or infinite activations")
        if "rows" in self._needs:
            self._rows.add(x, first=self._n)
        self._n += len(x)
        if "hessian" in self._needs:
            if "hessian" not in self._sums:
                self._sums["hessian"] = x.new_zeros(self._in_features, self._in_features)
            _add_gram(self._sums["hessian"], x)
        if "mean_abs" in self._needs:
            self._sums["mean_abs"] = self._sums.get("mean_abs", 0) + x.abs().sum(0)
        if {"minimum", "maximum", "absmax"} & self._needs:
            self._keep("minimum", x.amin(0), torch.minimum)  # ten times as fast as torch.aminmax along rows
            self._keep("maximum", x.amax(0), torch.maximum)

    def _keep(self, name: str, value: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._sums[name] = combine(self._sums[name], value) if name in self._sums else value

    def stats(self) -> LinearStats:
        """The statistics asked for, over everything added so far; none but the count if that is nothing."""
        n, s, needs = self._n, self._sums, self._needs
        if n == 0:
            return LinearStats(n_tokens=0)
        return LinearStats(
            n_tokens=n,
            hessian=_mirrored(s["hessian"]) * (2 / n) if "hessian" in needs else None,
            absmax=torch.maximum(s["minimum"].abs(), s["maximum"].abs()) if "absmax" in needs else None,
            mean_abs=s["mean_abs"] / n if "mean_abs" in needs else None,
            minimum=s["minimum"] if "minimum" in needs else None,
            maximum=s["maximum"] if "maximum" in needs else None,
            rows=self._rows.rows if "rows" in needs else None,
        )


def _add_gram(gram: Tensor, x: Tensor) -> None:
    """Add x^T x to gram [in, in], on and above the blocks of its diagonal alone: little more than half the work."""
    for start in range(0, len(gram), _ROWS):
        rows = slice(start, start + _ROWS)
        gram[rows, start:].addmm_(x[:, rows].t(), x[:, start:])


def _mirrored(gram: Tensor) -> Tensor:
    """The same tensor, with what lies above the blocks of its diagonal below them, too."""
    for start in range(_ROWS, len(gram), _ROWS):
        gram[start:, start - _ROWS : start] = gram[start - _ROWS : start, start:].t()
    return gram


class _StopForwardError(Exception):
    """Ends a forward once the last statistic wanted has been seen."""


def collect(
    block: nn.Module,
    groups: Sequence[InputGroup],
    hidden: Sequence[Tensor],
    calls: Sequence[BlockCall],
    needs: frozenset[str],
    all_expert_tokens: bool,
    within: Callable[[int], AbstractContextManager[None]] = lambda _index: nullcontext(),
    written: Callable[[Tensor], None] | None = None,
) -> list[LinearStats]:
    """Statistics of each group's input, over all sequences; a forward ends at the last group asked for.

    within: the context in which a sequence runs, by its index. written: takes what the block writes for each, for which
    forwards go on to the end.
    Those of an expert are over the tokens routed to it, which may be none; or (all_expert_tokens) over all tokens.
    Raises ModelError naming the weight if an activation is not finite.
    """
    accumulators = [StatsAccumulator(g.in_features, needs) for g in groups]

    def add(index: int, x: Tensor) -> None:
        try:
            accumulators[index].add(x)
        except ValueError as error:
            raise ModelError(f"{groups[index].slots[0].name}: {error} in its calibration input") from error

    def watch(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            add(index, args[0])
            if written is None and index == len(groups) - 1:
                raise _StopForwardError

        return hook

    def run_all(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with experts:
            run_all_experts(module, args, kwargs)

    handles: list[Removable] = [
        g.reader.register_forward_pre_hook(watch(i)) for i, g in enumerate(groups) if not g.routed
    ]
    routed = {g.slots[0].name: i for i, g in enumerate(groups) if g.routed}
    experts = watch_slices([groups[i].slots[0] for i in routed.values()], lambda name, x: add(routed[name], x))
    if all_expert_tokens:
        modules = {id(g.slots[0].module): g.slots[0].module for g in groups if g.routed}
        handles += [m.register_forward_pre_hook(run_all, with_kwargs=True) for m in modules.values()]
    try:
        for index, (states, call) in enumerate(zip(hidden, calls, strict=True)):
            try:
                with within(index), experts if routed and not all_expert_tokens else nullcontext():
                    output = run_block(block, states, call)
                if written is not None:
                    written(output)
            except _StopForwardError:
                continue
    finally:
        for handle in handles:
            handle.remove()
    return [a.stats() for a in accumulators]
