"""One block that can be run again as often as is needed, on the inputs it has in the walk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from quantbench.core.input_stats import LinearStats
from quantbench.core.memory import Keep, in_memory
from quantbench.models.groups import InputGroup
from quantbench.models.handle import Removable
from quantbench.models.slots import block_slots
from quantbench.pipeline.capture import START, BlockCall, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.finished import FinishedParts
from quantbench.pipeline.runtime import RuntimeOp, install


class BlockReplay:
    """A block, its inputs [1, L, d] a sequence, and its calls.

    all_expert_tokens  statistics of every expert are over all tokens, not over those routed to it
    keep               where outputs are kept
    start              the call for the first tokens of the first sequence alone (`Captured.starts`)
    """

    def __init__(
        self,
        name: str,
        block: nn.Module,
        hidden: Sequence[Tensor],
        calls: Sequence[BlockCall],
        all_expert_tokens: bool,
        keep: Keep = in_memory,
        start: BlockCall | None = None,
    ) -> None:
        self.name, self.block, self.hidden, self.calls = name, block, hidden, calls
        self._all_expert_tokens, self._keep = all_expert_tokens, keep
        self.finished = FinishedParts(name, block)
        self._start = None if any(slot.routed for slot in block_slots(name, block)) else start
        self._modules = {f"{name}.{key}" if key else name: module for key, module in block.named_modules()}

    def first_output(self) -> Tensor:
        """The output [1, L, d] for the first sequence, of which a block without experts is given the start alone."""
        if self._start is None:  # few tokens do not reach every expert
            return run_block(self.block, self.hidden[0], self.calls[0])
        return run_block(self.block, self.hidden[0][:, :START], self._start)

    def outputs(self) -> list[Tensor]:
        """The output [1, L, d] for each sequence."""
        found = []
        for index, (states, call) in enumerate(zip(self.hidden, self.calls, strict=True)):
            with self.finished.sequence(index):
                found.append(self._keep(run_block(self.block, states, call)))
        return found

    def stats(self, groups: Sequence[InputGroup], needs: frozenset[str]) -> list[LinearStats]:
        """Statistics of the inputs of groups, over all sequences."""
        given = (self.block, groups, self.hidden, self.calls, needs, self._all_expert_tokens)
        return collect(*given, within=self.finished.sequence)

    def outputs_and_stats(
        self, groups: Sequence[InputGroup], needs: frozenset[str]
    ) -> tuple[list[Tensor], list[LinearStats]]:
        """Both in one run of each sequence."""
        outputs: list[Tensor] = []
        given = (self.block, groups, self.hidden, self.calls, needs, self._all_expert_tokens)
        stats = collect(*given, within=self.finished.sequence, written=lambda one: outputs.append(self._keep(one)))
        return outputs, stats

    def install(self, ops: Iterable[RuntimeOp]) -> list[Removable]:
        """Perform operations whenever the block runs; returns what removes them."""
        return install(self._modules, ops)
