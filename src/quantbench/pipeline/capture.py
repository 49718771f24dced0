"""Replaying a model block by block: the inputs of the first block, and every block's own arguments.

Blocks of one model may get different arguments (Gemma2 alternates attention masks), so replaying the first
block's arguments everywhere is wrong. A skeleton forward, in which every block only notes its arguments and hands its
input on, collects them all for the price of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.models.handle import run_decoder
from quantbench.pipeline.devices import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

START = 64
"""Tokens of a sequence that show how a block is built: which weights read one tensor, what wrote it."""


@dataclass(frozen=True)
class BlockCall:
    """Everything a block is called with besides its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Captured:
    """hidden: one tensor [1, L, d] a sequence, the input of the first block; calls[block][sequence].

    returns_tuple: whether blocks of a class return their hidden states in a tuple.
    starts[block]: the call for the first START tokens of the first sequence alone; empty unless asked for.
    """

    hidden: list[Tensor]
    calls: list[list[BlockCall]]
    returns_tuple: dict[type[nn.Module], bool]
    starts: list[BlockCall] = field(default_factory=list)


def capture_with_starts(model: PreTrainedModel, blocks: nn.ModuleList, tokens: Tensor) -> Captured:
    """As `capture`, with the calls for the first tokens alone."""
    captured = capture(model, blocks, tokens)
    captured.starts = [call for (call,) in capture(model, blocks, tokens[:1, :START]).calls]
    return captured


def capture(model: PreTrainedModel, blocks: nn.ModuleList, tokens: Tensor) -> Captured:
    """Run tokens int64 [N, L] through the skeleton of the model, one sequence at a time."""
    hidden: list[Tensor] = []
    calls: list[list[BlockCall]] = [[] for _ in blocks]
    returns_tuple: dict[type[nn.Module], bool] = {}
    sharer = _Sharer()

    def record(index: int, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        states, rest, named = _split_hidden(args, kwargs)
        if index == 0:
            hidden.append(states)
        calls[index].append(BlockCall(sharer.share((index, "args"), rest), sharer.share((index, "kwargs"), named)))
        kind = type(blocks[index])
        if kind not in returns_tuple:
            returns_tuple[kind] = isinstance(original(*args, **kwargs), tuple)
        return (states,) if returns_tuple[kind] else states

    with replaced_forwards(blocks, record):
        for sequence in tokens:
            sharer.next_sequence()
            run_decoder(model, sequence[None])
    if len(hidden) != len(tokens) or any(len(c) != len(tokens) for c in calls):
        raise ModelError(f"model class {type(model).__name__} does not run each of its blocks once in a forward")
    return Captured(hidden, calls, returns_tuple)


def run_block(block: nn.Module, hidden: Tensor, call: BlockCall) -> Tensor:
    """The block's output hidden states [1, L, d]."""
    device = next(block.parameters()).device
    args, kwargs = to_device(call.args, device), to_device(call.kwargs, device)
    output = block(hidden.to(device), *args, **kwargs)
    states = output[0] if isinstance(output, tuple) else output
    assert isinstance(states, Tensor)
    return states


@contextmanager
def block_on(block: nn.Module, device: torch.device) -> Iterator[None]:
    """Within the context a block that nobody changes is on `device`; afterwards where it was, without a copy back."""
    before = [(parameter, parameter.data) for parameter in block.parameters()]
    block.to(device)
    try:
        yield
    finally:
        for parameter, data in before:
            parameter.data = data
        block.to("cpu")


@contextmanager
def replaced_forwards(blocks: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the context each block calls `forward(index, its original forward, *args, **kwargs)` instead."""

    def bind(index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: forward(index, original, *args, **kwargs)

    for index, block in enumerate(blocks):
        block.forward = bind(index, block.forward)
    try:
        with torch.no_grad():
            yield
    finally:
        for block in blocks:
            del block.forward


def run_head(model: PreTrainedModel, blocks: nn.ModuleList, states: Tensor, as_tuple: bool) -> Tensor:
    """The logits of what the last block wrote, [1, L, d]; as_tuple: it returns that in a tuple."""
    output = (states.cpu(),) if as_tuple else states.cpu()
    ids = torch.zeros(states.shape[:2], dtype=torch.int64)
    with replaced_forwards(blocks, lambda _index, _original, *_args, **_kwargs: output):
        logits = model(input_ids=ids, use_cache=False).logits
    assert isinstance(logits, Tensor)
    return logits


def _split_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest


class _Sharer:
    """Keeps one copy of argument tensors that are equal in all sequences (position embeddings, masks)."""

    def __init__(self) -> None:
        self._first: dict[Any, Tensor] = {}
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    def next_sequence(self) -> None:
        self._seen.clear()

    def share(self, key: Any, value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in self._seen:
                first = self._first.setdefault(key, value)
                same = first.shape == value.shape and first.dtype == value.dtype and torch.equal(first, value)
                self._seen[id(value)] = (value, first if same else value)
            return self._seen[id(value)][1]
        if isinstance(value, tuple | list):
            return type(value)(self.share((key, i), v) for i, v in enumerate(value))
        if isinstance(value, dict):
            return {k: self.share((key, k), v) for k, v in value.items()}
        return value
