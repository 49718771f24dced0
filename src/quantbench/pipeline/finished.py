"""Parts of a block that will not change any more are not run again on inputs they have been run on.

While a block's weights are rounded group after group, it runs up to the next group each time (`true_sequential`). What
lies before that group was run on the same inputs the time before, but for the weights rounded since. So every module
whose weights are final keeps what it writes, sequence by sequence: first single layers, then in their place whole parts
of the block. A sequence runs through each weight about once instead of three times, and gives the same bits. Attention
has no weights: its output is kept from the time that it is run for what reads it until it is run for what comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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
        self._final: set[nn.Module] = set()
        self._kept: dict[nn.Module, dict[int, Any]] = {}
        self._attended: dict[int, _Attended] = {}
        self._within = False
        self.size = 0
        """Bytes that are kept."""

    def finish(self, groups: Iterable[InputGroup]) -> None:
        """The weights of these groups are final, as are those of all groups before them."""
        self._final.update(slot.module for group in groups for slot in group.slots if not slot.routed)

    def forget(self) -> None:
        """Free what is kept; nothing is finished."""
        self._final.clear()
        self._kept.clear()
        self._attended.clear()
        self.size = 0

    @contextmanager
    def sequence(self, index: int) -> Iterator[None]:
        """Within the context the block runs on the inputs of one sequence, the same each time."""
        parts = [module for module, held in self._inside.items() if held <= self._final]
        own = {part: part.__dict__["forward"] for part in parts if "forward" in part.__dict__}  # a library's wrapper
        for part in parts:
            part.forward = self._or_kept(part, part.forward, index)
        try:
            with _Attention(self, index) if parts else nullcontext():
                yield
        finally:
            for part in parts:
                del part.forward
            for part, forward in own.items():
                part.forward = forward

    def _or_kept(self, part: nn.Module, original: Callable[..., Any], index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            written = self._kept.get(part, {}).get(index)
            if written is not None:
                return _copied(written)
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

    def attend(self, index: int, run: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What `run` makes of the arguments: kept from the sequence's run before if they were the same."""
        before = self._attended.pop(index, None)
        if before is not None:
            self.size -= before.size
            if before.args_equal(args, kwargs):
                return before.output
        output = run(*args, **kwargs)
        now = _Attended(args, kwargs, output.clone())  # some models write to what they are given
        if self.size + now.size <= self.limit:
            self._attended[index] = now
            self.size += now.size
        return output

    def _keep(self, part: nn.Module, index: int, written: Any) -> None:
        for inner in part.modules():
            self.size -= _bytes(self._kept.get(inner, {}).pop(index, None))
        size = _bytes(written)
        if self.size + size <= self.limit:
            self._kept.setdefault(part, {})[index] = _copied(written)
            self.size += size


@dataclass(frozen=True, eq=False)
class _Attended:
    """The arguments of an attention and what came of them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor

    @property
    def size(self) -> int:
        return sum(_bytes(one) for one in (self.args, *self.kwargs.values(), self.output))

    def args_equal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return (
            len(args) == len(self.args)
            and kwargs.keys() == self.kwargs.keys()
            and all(map(_equal, args, self.args))
            and all(_equal(value, self.kwargs[name]) for name, value in kwargs.items())
        )


class _Attention(TorchFunctionMode):
    """Within the context the attention of one sequence is asked of the parts."""

    def __init__(self, parts: FinishedParts, index: int) -> None:
        super().__init__()
        self._parts, self._index = parts, index

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._parts.attend(self._index, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other))
    return type(one) is type(other) and bool(one == other)


def _copied(written: Any) -> Any:
    """A copy: some models add to what a part wrote in its place."""
    if isinstance(written, Tensor):
        return written.clone()
    return tuple(map(_copied, written)) if isinstance(written, tuple) else written


def _bytes(written: Any) -> int:
    if isinstance(written, Tensor):
        return written.numel() * written.element_size()
    return sum(map(_bytes, written)) if isinstance(written, tuple) else 0
