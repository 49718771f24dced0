"""The shifts of the inputs of one block's groups while its transforms are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quantbench.models.groups import InputGroup
from quantbench.models.handle import Removable
from quantbench.pipeline.input_ops import ShiftInput
from quantbench.pipeline.replay import BlockReplay


class InputShifts:
    """What is subtracted from the input of each group, by its index; performed between `perform` and `stop`."""

    def __init__(self, replay: BlockReplay, groups: Sequence[InputGroup]) -> None:
        self._replay, self._groups = replay, groups
        self._shifts: dict[int, Tensor] = {}
        self._installed: list[Removable] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._shifts)

    def add(self, index: int, shift: Tensor) -> None:
        """Shift the input of a group by a vector [in] more."""
        self._shifts[index] = self._shifts.get(index, 0) + shift

    def divide(self, index: int, scale: Tensor) -> None:
        """The input of a group is divided by a scale [in] from now on, and with it what is subtracted."""
        if index in self._shifts:
            self._shifts[index] = self._shifts[index] / scale

    def ops(self) -> list[ShiftInput]:
        """The operations, for the weights as they are."""
        return [
            ShiftInput(module=slot.name, shift=shift, offset=slot.get() @ shift)
            for index, shift in self._shifts.items()
            for slot in self._groups[index].slots
        ]

    def perform(self) -> None:
        """Shift inputs whenever the block runs, for the weights as they are."""
        self.stop()
        self._installed = self._replay.install(self.ops())

    def stop(self) -> None:
        """Leave inputs as they are."""
        for removable in self._installed:
            removable.remove()
        self._installed = []
