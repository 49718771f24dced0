"""Parts of a block that will not change any more are not run again on inputs they have been run on.

While a block's weights are rounded group after group, it runs up to the next group each time (`true_sequential`). What
lies before that group was run on the same inputs the time before, but for the weights rounded since. So every module
whose weights are final keeps what it writes, sequence by sequence: first single layers, then in their place whole parts
of the block. A sequence runs through each weight about once instead of three times, and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

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
        self.size = 0

    @contextmanager
    def sequence(self, index: int) -> Iterator[None]:
        """Within the context the block runs on the inputs of one sequence, the same each time."""
        parts = [module for module, held in self._inside.items() if held <= self._final]
        own = {part: part.__dict__["forward"] for part in parts if "forward" in part.__dict__}  # a library's wrapper
        for part in parts:
            part.forward = self._or_kept(part, part.forward, index)
        try:
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

    def _keep(self, part: nn.Module, index: int, written: Any) -> None:
        for inner in part.modules():
            self.size -= _bytes(self._kept.get(inner, {}).pop(index, None))
        size = _bytes(written)
        if self.size + size <= self.limit:
            self._kept.setdefault(part, {})[index] = _copied(written)
            self.size += size


def _copied(written: Any) -> Any:
    """A copy: some models add to what a part wrote in its place."""
    if isinstance(written, Tensor):
        return written.clone()
    return tuple(map(_copied, written)) if isinstance(written, tuple) else written


def _bytes(written: Any) -> int:
    if isinstance(written, Tensor):
        return written.numel() * written.element_size()
    return sum(map(_bytes, written)) if isinstance(written, tuple) else 0
