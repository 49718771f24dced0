"""Parts of a block that will not change any more are not run again on inputs they have been run on.

While a block's weights are rounded group after group, it runs up to the next group each time (`true_sequential`). What
lies before that group was run on the same inputs the time before, but for the weights rounded since. So every module
whose weights are final keeps what it writes, sequence by sequence: first single layers, then in their place whole parts
of the block. A sequence runs through each weight about once instead of three times, and gives the same bits. Attention
and normalizations have no weights that are rounded: what they make of their inputs is kept until they get other ones.
Nothing is copied: a tensor counts its changes, and what was changed after it was kept is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from quantbench.models.groups import InputGroup
from quantbench.models.slots import block_slots


class FinishedParts:
    """The finished parts of a block and what they wrote.

    What holds experts in one parameter is never finished.
    """

    limit: ClassVar[int] = 512 * 2**20
    """Bytes that are kept. Sequences of which nothing is kept run as if nothing were."""

    def __init__(self, name: str, block: nn.Module) -> None:
        holding = {slot.module for slot in block_slots(name, block)}
        self._inside = {
            module: held
            for module in block.modules()
            if module is not block and (held := holding.intersection(module.modules()))
        }
        self._norms = [
            module
            for module in block.modules()
            if module not in self._inside and list(module.parameters()) and not list(module.children())
        ]
        self._final: set[nn.Module] = set()
        self._kept: dict[nn.Module, dict[int, _Kept]] = {}
        self._answers: dict[tuple[Any, int], _Answer] = {}
        self._begun = self._within = False
        self.size = 0
        """Bytes that are kept."""

    def begin(self) -> None:
        """From now on nothing of the block changes but the weights of its groups."""
        self._begun = True

    def finish(self, groups: Iterable[InputGroup]) -> None:
        """The weights of these groups are final, as are those of all groups before them."""
        self._final.update(slot.module for group in groups for slot in group.slots if not slot.routed)

    def forget(self) -> None:
        """Free what is kept; nothing is finished."""
        self._final.clear()
        self._kept.clear()
        self._answers.clear()
        self._begun, self.size = False, 0

    @contextmanager
    def sequence(self, index: int) -> Iterator[None]:
        """Within the context the block runs on the inputs of one sequence, the same each time."""
        replaced = {part: self._or_kept(part, index) for part, held in self._inside.items() if held <= self._final}
        if self._begun:
            replaced |= {norm: partial(self.answer, norm, index, norm.forward) for norm in self._norms}
        own = {part: part.__dict__["forward"] for part in replaced if "forward" in part.__dict__}  # a library's wrapper
        for part, forward in replaced.items():
            part.forward = forward
        try:
            with _Attention(self, index) if self._begun else nullcontext():
                yield
        finally:
            for part in replaced:
                del part.forward
            for part, forward in own.items():
                part.forward = forward

    def _or_kept(self, part: nn.Module, index: int) -> Callable[..., Any]:
        original = part.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            kept = self._kept.get(part, {}).get(index)
            if kept is not None and kept.untouched:
                return kept.written
            if self._within:  # the part around this one will be kept
                return original(*args, **kwargs)
            self._within = True
            try:
                written = original(*args, **kwargs)
            finally:
                self._within = False
            self._keep(part, index, written)
            return written

        return forward

    def answer(self, asked: Any, index: int, run: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What `run` makes of the arguments: for each that is asked kept from the run before if they were the same."""
        before = self._answers.pop((asked, index), None)
        if before is not None:
            if before.of(args, kwargs):
                self._answers[asked, index] = before
                return before.output.written
            self.size -= before.size
        output = run(*args, **kwargs)
        now = _Answer(_Kept.of((args, *kwargs.values())), tuple(kwargs), _Kept.of(output))
        if self.size + now.size <= self.limit:
            self._answers[asked, index] = now
            self.size += now.size
        return output

    def _keep(self, part: nn.Module, index: int, written: Any) -> None:
        for inner in part.modules():
            before = (self._kept.get(inner, {}).pop(index, None), self._answers.pop((inner, index), None))
            self.size -= sum(one.size for one in before if one is not None)
        kept = _Kept.of(written)
        if self.size + kept.size <= self.limit:
            self._kept.setdefault(part, {})[index] = kept
            self.size += kept.size


@dataclass(frozen=True, eq=False)
class _Kept:
    """What was written, and how often each of its tensors had been changed when it was kept."""

    written: Any
    changes: tuple[int | None, ...]

    @classmethod
    def of(cls, written: Any) -> _Kept:
        return cls(written, tuple(map(_changes, _tensors(written))))

    @property
    def untouched(self) -> bool:
        """Whether nothing was changed since: some models add to what a part wrote in its place."""
        return None not in self.changes and self.changes == tuple(map(_changes, _tensors(self.written)))

    @property
    def size(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self.written))


@dataclass(frozen=True, eq=False)
class _Answer:
    """Arguments: positions, then those that have names; and what came of them."""

    arguments: _Kept
    names: tuple[str, ...]
    output: _Kept

    @property
    def size(self) -> int:
        return self.arguments.size + self.output.size

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether these are the arguments, and nothing has been changed."""
        same = self.names == tuple(kwargs) and self.arguments.untouched and self.output.untouched
        return same and _equal(self.arguments.written, (args, *kwargs.values()))


class _Attention(TorchFunctionMode):
    """Within the context the attention of one sequence is asked of the parts."""

    def __init__(self, parts: FinishedParts, index: int) -> None:
        super().__init__()
        self._parts, self._index = parts, index

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._parts.answer("attention", self._index, func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _tensors(written: Any) -> Iterator[Tensor]:
    if isinstance(written, Tensor):
        yield written
    elif isinstance(written, tuple):
        for one in written:
            yield from _tensors(one)


def _changes(tensor: Tensor) -> int | None:
    """A count; None for tensors that do not count."""
    return None if tensor.is_inference() else tensor._version


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, int | float | str | None) and type(one) is type(other) and one == other
