"""What is measured beside other tools: kinds of work, settings of each, and who does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

GROUPS = "quantizer.weight.group_size=64"
SYMMETRIC = ("quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range")
ALPHA = "quantizer.transforms.smooth.alpha=0.5"
OURS = "quantbench "
"""How names of quantbench's recipes begin among the tools."""


@dataclass(frozen=True)
class Setting:
    """Bits of weights (None: the work's own), calibration sequences of 512 tokens, threads."""

    bits: int | None
    sequences: int
    threads: int

    def __str__(self) -> str:
        bits = "" if self.bits is None else f"W{self.bits}, "
        return f"{bits}{self.sequences} x 512, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Work:
    """One kind of work.

    tools    by name: a recipe of quantbench with overrides, or a maker (benchmarks.peers.makers) with what it is asked
             for; BITS stands for the number of bits
    target   what share of the best rival's CPU seconds the first tool is to take
    bits     numbers of bits; the first is the one of the short form
    data     whether calibration tokens are read
    """

    tools: Mapping[str, tuple[str, ...]]
    target: float
    bits: tuple[int | None, ...] = (4,)
    data: bool = True

    def settings(self) -> Iterator[tuple[Setting, bool]]:
        """Each setting, and whether it is the one that is repeated."""
        first = self.bits[0]
        yield Setting(first, 8, 1), True
        yield from ((Setting(bits, 8, 1), False) for bits in self.bits[1:])
        if self.data:
            yield Setting(first, 32, 1), False
        yield Setting(first, 8, 2), False

    def command(self, tool: str, setting: Setting) -> tuple[str, ...]:
        """What the tool is given."""
        return tuple(word.replace("BITS", str(setting.bits)) for word in self.tools[tool])


WIDTH = "quantizer.weight.bits=BITS"
WORK: dict[str, Work] = {
    "GPTQ, asymmetric": Work(
        {
            f"{OURS}gptq": ("gptq", GROUPS, WIDTH),
            f"{OURS}gptq_paper": ("gptq_paper", GROUPS, WIDTH),
            "llmcompressor": ("llmcompressor", "gptq", "BITS"),
            "gptqmodel": ("gptqmodel", "asymmetric", "BITS"),
        },
        target=0.5,
        bits=(4, 3),
    ),
    "GPTQ, symmetric": Work(
        {
            f"{OURS}gptq": ("gptq", GROUPS, WIDTH, *SYMMETRIC),
            "llmcompressor": ("llmcompressor", "gptq_symmetric", "BITS"),
            "gptqmodel": ("gptqmodel", "symmetric", "BITS"),
        },
        target=0.5,
        bits=(4, 3),
    ),
    "AWQ, asymmetric": Work(
        {f"{OURS}awq": ("awq", GROUPS, WIDTH), "llmcompressor": ("llmcompressor", "awq", "BITS")}, target=0.2
    ),
    "SmoothQuant, W8A8": Work(
        {
            f"{OURS}smoothquant": ("smoothquant", ALPHA),
            f"{OURS}smoothquant, propagate=full": ("smoothquant", ALPHA, "quantizer.propagate=full"),
            "llmcompressor": ("llmcompressor", "w8a8", "8"),
        },
        target=0.5,
        bits=(None,),
    ),
    "HQQ": Work({f"{OURS}hqq": ("hqq", WIDTH), "hqq": ("hqq_package", "BITS")}, target=0.3, bits=(4, 3), data=False),
    "nearest, asymmetric": Work(
        {f"{OURS}rtn": ("rtn", GROUPS, WIDTH), "torchao": ("torchao", "int4")}, target=1.0, data=False
    ),
}


@dataclass(frozen=True)
class Measurement:
    """What is measured at once."""

    work: str
    setting: Setting
    tool: str
    repetition: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """As measurements that were made are known by."""
        return self.work, str(self.setting), self.tool, self.repetition


def measurements(repeat: int, short: bool) -> Iterator[Measurement]:
    """All of them, tools in turn, repeated settings first; short: one repetition of the first setting of each work."""
    for wanted in (True,) if short else (True, False):
        for name, work in WORK.items():
            for setting, repeated in work.settings():
                if repeated == wanted:
                    for repetition in range(repeat if repeated and not short else 1):
                        yield from (Measurement(name, setting, tool, repetition) for tool in work.tools)
