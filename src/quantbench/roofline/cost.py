"""From operators to time and memory on a machine: each operator takes what its bound lets it take, one after another.

time = max(operations / rate, bytes / bandwidth) + bytes sent / interconnect (arXiv 2402.16363, Section 2.2)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from quantbench.roofline.hardware import Hardware
from quantbench.roofline.load import Load
from quantbench.roofline.operators import Operator, Phase
from quantbench.roofline.precision import SERVED, Precision
from quantbench.roofline.shape import GroupedAttention, Shape

MEMORY, COMPUTE, INTERCONNECT = "memory", "compute", "interconnect"
"""What bounds an operator."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Operators of one name in a phase, of all blocks.

    seconds  on the machine
    bound    "memory", "compute", "interconnect", or several of them joined by "+" where blocks differ
    """

    name: str
    count: int
    flops: float
    weight_bytes: float
    cache_bytes: float
    activation_bytes: float
    seconds: float
    bound: str
    arithmetic: str

    @property
    def bytes(self) -> float:
        """All that goes through the chip's memory."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte; 0 where nothing is read."""
        return self.flops / self.bytes if self.bytes else 0.0


def seconds(operator: Operator, machine: Hardware) -> tuple[float, str]:
    """The time of an operator, and its bound."""
    if operator.sent_bytes:
        assert machine.interconnect is not None
        return operator.sent_bytes / machine.interconnect, INTERCONNECT
    computing, moving = operator.flops / machine.rate(operator.arithmetic), operator.bytes / machine.bandwidth
    return (computing, COMPUTE) if computing > moving else (moving, MEMORY)


def timed(operators: Iterable[Operator], machine: Hardware) -> list[Timed]:
    """The operators by name, in the order in which each is met first."""
    groups: dict[tuple[str, str], list[tuple[Operator, float, str]]] = {}
    for one in operators:
        groups.setdefault((one.name, one.arithmetic), []).append((one, *seconds(one, machine)))
    return [
        Timed(
            name=name,
            count=len(own),
            flops=sum(one.flops for one, _, _ in own),
            weight_bytes=sum(one.weight_bytes for one, _, _ in own),
            cache_bytes=sum(one.cache_bytes for one, _, _ in own),
            activation_bytes=sum(one.activation_bytes for one, _, _ in own),
            seconds=sum(time for _, time, _ in own),
            bound="+".join(dict.fromkeys(bound for _, _, bound in own)),
            arithmetic=arithmetic,
        )
        for (name, arithmetic), own in groups.items()
    ]


def weight_bytes(model: Shape, precision: Precision, chips: int = 1) -> float:
    """Bytes of stored weights on each of so many chips: matrices, embeddings, norms; biases are left out.

    A tied head is stored once unless it is quantized otherwise than the embeddings.
    """
    embeddings = precision.of(None, "embeddings")
    total = model.vocabulary * model.embedding_width * embeddings / chips
    for block, linear in model.linears():
        own = precision.of(block, linear.role)
        if linear.role != "lm_head" or not model.tied or own != embeddings:
            total += linear.size * own / (chips if linear.split != "none" else 1)
    kept = (model.positions + 2 * len(model.blocks) + 1) * model.hidden
    return (total + kept * SERVED) / 8


@dataclass(frozen=True)
class Cost:
    """What a model of a shape, in a precision, costs under a load on a machine; all of it for one chip.

    Raises ConfigError if the model takes no such load.
    """

    model: Shape
    precision: Precision
    load: Load
    machine: Hardware

    def __post_init__(self) -> None:
        self.load.check(self.model, self.machine)

    @cached_property
    def prefill(self) -> list[Timed]:
        """All tokens of the context at once."""
        return timed(self._phase(self.load.context, self.load.context).operators(), self.machine)

    @cached_property
    def decode(self) -> list[Timed]:
        """One token, the last of the context."""
        return self._decode(self.load.context)

    @property
    def prefill_ms(self) -> float:
        """Milliseconds until the first token."""
        return 1e3 * sum(one.seconds for one in self.prefill)

    @property
    def decode_ms(self) -> float:
        """Milliseconds for a token of each sequence."""
        return 1e3 * sum(one.seconds for one in self.decode)

    @cached_property
    def answer_ms(self) -> float:
        """Milliseconds for prefill and all new tokens, of which each sees one more."""
        steps = range(self.load.context + 1, self.load.length + 1)
        return self.prefill_ms + 1e3 * sum(one.seconds for step in steps for one in self._decode(step))

    @cached_property
    def weight_bytes(self) -> float:
        """Stored weights on each chip."""
        return weight_bytes(self.model, self.precision, self.load.tensor_parallel)

    def cache_bytes(self, batch: int) -> float:
        """The key-value cache of so many sequences at their full length."""
        total = 0.0
        for block in self.model.blocks:
            own, kept = block.attention, self.load.length
            cached: float = own.cached
            if isinstance(own, GroupedAttention):
                cached = 2 * self.load.kv_heads(own) * own.width
                kept = min(kept, own.window or kept)
            total += cached * self.precision.cache_bits(kept, self.load.length)
        return batch * total / 8

    def activation_bytes(self, batch: int) -> float:
        """The most that an operator reads and writes: prefilling one sequence, or decoding a token of each."""
        prefilled, decoded = self._activations
        return max(prefilled, batch * decoded)

    @cached_property
    def _activations(self) -> tuple[float, float]:
        """The same of one sequence: prefilled, and decoded at its end."""
        alone = replace(self.load, batch=1)
        phases = [
            Phase(model=self.model, precision=self.precision, load=alone, n=n, length=length)
            for n, length in ((alone.context, alone.context), (1, alone.length))
        ]
        prefilled, decoded = (max(one.activation_bytes for one in phase.operators()) for phase in phases)
        return prefilled, decoded

    @property
    def memory_bytes(self) -> float:
        """Weights, cache and activations of the batch."""
        return self.weight_bytes + self.cache_bytes(self.load.batch) + self.activation_bytes(self.load.batch)

    @cached_property
    def largest_batch(self) -> int:
        """The most sequences whose cache fits beside weights and activations into the share of memory; 0: not one."""
        room = self.machine.memory * self.load.memory_share - self.weight_bytes
        fits, fails = 0, 1
        while self._takes(fails) <= room:
            fits, fails = fails, 2 * fails
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self._takes(middle) <= room else (fits, middle)
        return fits

    def _takes(self, batch: int) -> float:
        return self.cache_bytes(batch) + self.activation_bytes(batch)

    def _phase(self, n: int, length: int) -> Phase:
        return Phase(model=self.model, precision=self.precision, load=self.load, n=n, length=length)

    def _decode(self, length: int) -> list[Timed]:
        return timed(self._phase(1, length).operators(), self.machine)
