"""How compressed-tensors describes one quantization: numbers, and what shares a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.layout import Shape
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block", "token")


@dataclass(frozen=True)
class Scheme:
    """bits, type ("int", "float"), symmetric, and what shares a scale; dynamic: taken as the model runs (or "local").

    block  (rows, columns) of strategy "block"
    """

    bits: int
    type: str
    symmetric: bool
    strategy: str
    group_size: int | None
    block: tuple[int, int] | None
    dynamic: bool | str

    @classmethod
    def of(cls, given: Any, where: str) -> Scheme:
        """From what stands at `where` in a quantization_config. Raises ModelError for a value that cannot be read."""
        if not isinstance(given, Mapping):
            raise ModelError(f"quantization_config.{where}={given!r}: expected a mapping")
        bits, kind = given.get("num_bits", 8), given.get("type", "int")
        if (kind, bits) not in {("float", 4), ("float", 6), ("float", 8), *(("int", b) for b in range(1, 9))}:
            raise ModelError(
                f"quantization_config.{where}: type={kind!r} with num_bits={bits!r} is not read; quantbench reads int "
                "of 1 to 8 bits, float of 4 (e2m1), 6 (e2m3) and 8 (e4m3)"
            )
        size, block = given.get("group_size"), given.get("block_structure")
        strategy = given.get("strategy") or _strategy(size)
        if strategy not in STRATEGIES:
            raise ModelError(
                f"quantization_config.{where}.strategy={strategy!r}: quantbench reads {', '.join(STRATEGIES)}"
            )
        if strategy in ("group", "tensor_group") and not (isinstance(size, int) and size > 0):
            raise ModelError(f"quantization_config.{where}.group_size={size!r}: strategy {strategy} needs a number")
        if strategy == "block" and not (isinstance(block, list | tuple) and len(block) == 2):
            raise ModelError(f"quantization_config.{where}.block_structure={block!r}: strategy block needs two numbers")
        return cls(
            bits=int(bits),
            type=str(kind),
            symmetric=bool(given.get("symmetric", True)),
            strategy=str(strategy),
            group_size=size if strategy in ("group", "tensor_group") else None,
            block=(int(block[0]), int(block[1])) if strategy == "block" and block else None,
            dynamic=given.get("dynamic", False),
        )

    @property
    def name(self) -> str:
        """As a record says it: "int4 asymmetric, groups of 128"."""
        shared = {"channel": "one scale a row", "tensor": "one scale", "token": "one scale a token"}
        blocks = "" if self.block is None else f"blocks of {self.block[0]} x {self.block[1]}"
        groups = shared.get(self.strategy, blocks or f"groups of {self.group_size}")
        return f"{self.type}{self.bits}{'' if self.symmetric else ' asymmetric'}, {groups}"

    def scale_shapes(self, shape: tuple[int, int]) -> list[Shape]:
        """Shapes that the scales of a weight [out, in] may be stored in; the first is the usual one."""
        rows, columns = shape
        if self.strategy == "block" and self.block is not None:
            return [(-(-rows // self.block[0]), -(-columns // self.block[1]))]
        if self.group_size is not None:
            return [(rows, -(-columns // self.group_size))]
        return [(1, 1), (1,), ()] if self.strategy == "tensor" else [(rows, 1), (rows,)]

    def spread(self, stored: Tensor, shape: tuple[int, int], index: Tensor | None = None) -> Tensor:
        """Scales or zero points as they are stored -> one for each weight, broadcastable to [out, in].

        index  the group of each input [in], where that is not i // group_size
        """
        rows, columns = shape
        if self.strategy == "block" and self.block is not None:
            tall = stored.repeat_interleave(self.block[0], 0)[:rows]
            return tall.repeat_interleave(self.block[1], 1)[:, :columns]
        if self.group_size is not None:
            group = torch.arange(columns) // self.group_size if index is None else index.long()
            return stored[:, group]
        return stored.reshape(1, 1) if self.strategy == "tensor" else stored.reshape(rows, 1)


def _strategy(size: int | None) -> str:
    """What a configuration without a strategy means."""
    if size is None:
        return "tensor"
    return "channel" if size == -1 else "group"
