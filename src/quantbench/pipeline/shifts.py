"""What is done to the inputs of one block's groups as the model runs, while its transforms are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quantbench.models.groups import InputGroup
from quantbench.models.handle import Removable
from quantbench.pipeline.input_ops import DivideInput, ShiftInput
from quantbench.pipeline.replay import BlockReplay


class InputShifts:
    """What the input of each group is divided by, and what is then subtracted from it, by the group's index.

    Performed between `perform` and `stop`.
    """

    def __init__(self, replay: BlockReplay, groups: Sequence[InputGroup]) -> None:
        self._replay, self._groups = replay, groups
        self._scales: dict[int, Tensor] = {}
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

    def divide_as_it_runs(self, index: int, scale: Tensor) -> None:
        """Divide the input of a group by a scale [in] more, before anything is subtracted."""
        self._scales[index] = self._scales.get(index, 1) * scale

    def ops(self) -> list[DivideInput | ShiftInput]:
        """The operations, for the weights as they are."""
        divisions = [
            DivideInput(module=slot.name, scale=scale)
            for index, scale in self._scales.items()
            for slot in self._groups[index].slots
        ]
        shifts = [
            ShiftInput(module=slot.name, shift=shift, offset=slot.get() @ shift)
            for index, shift in self._shifts.items()
            for slot in self._groups[index].slots
        ]
        return [*divisions, *shifts]

    def perform(self) -> None:
        """Divide and shift inputs whenever the block runs, for the weights as they are."""
        self.stop()
        self._installed = self._replay.install(self.ops())

    def stop(self) -> None:
        """Leave inputs as they are."""
        for removable in self._installed:
            removable.remove()
        self._installed = []
