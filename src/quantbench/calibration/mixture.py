"""A calibration set mixed from others: each part drawn by its own sampler, in exact numbers of sequences."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.calibration.base import AnyCalibration, CalibSet
from quantbench.core.apportion import largest_remainder
from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.core.origin import Origin
from quantbench.datasets.documents import TextSource, check_reachable, joined_listings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
else:
    torch = lazy_module("torch")


@component
class MixedSet:
    """A part of a mixture: a calibration set, and its share of the sequences."""

    weight: float
    set: AnyCalibration


@component
class Mixture:
    """n sequences, of which each part has its weight's share; shares are rounded by largest remainder.

    mixed  the parts by name, in the order in which equal remainders are served. The n, length, seed and draw of a part
           are those of the mixture, but for n, which is its share
    The parts' sequences are interleaved, so that any beginning of the set is mixed in about the same proportions.
    """

    mixed: dict[str, MixedSet]
    n: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=8)]
    seed: Annotated[int, Field(ge=0)]
    draw: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.mixed:
            raise ConfigError("calib.parts: no part has a weight; give, for instance, calib.parts.wiki=1")
        for name, part in self.mixed.items():
            if not (part.weight > 0 and math.isfinite(part.weight)):
                raise ConfigError(f"calib.parts.{name}={part.weight:g}: a weight is above 0; null leaves a part out")
        total = math.fsum(part.weight for part in self.mixed.values())
        if not math.isclose(total, 1, abs_tol=1e-6):
            given = ", ".join(f"{name}={part.weight:g}" for name, part in self.mixed.items())
            raise ConfigError(f"calib.parts: the weights {given} add up to {total:g}, not to 1")
        for name, count in self.shares.items():
            if not count:
                weight = self.mixed[name].weight
                raise ConfigError(
                    f"calib.parts.{name}={weight:g} of calib.n={self.n} sequences is not one; raise one of them"
                )

    @property
    def shares(self) -> dict[str, int]:
        """How many sequences each part has."""
        counts = largest_remainder(self.n, [part.weight for part in self.mixed.values()])
        return dict(zip(self.mixed, counts, strict=True))

    @property
    def origins(self) -> tuple[Origin, ...]:
        """See AnyCalibration."""
        return tuple(origin for part in self.mixed.values() for origin in part.set.origins)

    @property
    def sources(self) -> tuple[TextSource, ...]:
        """See AnyCalibration."""
        return tuple(source for part in self.mixed.values() for source in part.set.sources)

    def check_reachable(self) -> None:
        """Raise DataError if the text of a part is neither here nor can be fetched."""
        for part in self.mixed.values():
            for source in part.set.sources:
                check_reachable(source, "train")

    def draw_set(self, tokenizer: PreTrainedTokenizerBase) -> CalibSet:
        """Draw every part. Raises DataError if one is too short."""
        drawn: list[CalibSet] = []
        for name, count in self.shares.items():
            own = {"n": count, "length": self.length, "seed": self.seed, "draw": self.draw}
            part: AnyCalibration = dataclasses.replace(self.mixed[name].set, **own)  # type: ignore[type-var]
            drawn.append(part.draw_set(tokenizer))
        order = sorted(
            ((row + 0.5) / len(one.tokens), number, row)
            for number, one in enumerate(drawn)
            for row in range(len(one.tokens))
        )
        names = [f"{weight.weight:g} {one.name}" for weight, one in zip(self.mixed.values(), drawn, strict=True)]
        texts = "\n".join(one.text_fingerprint for one in drawn)
        return CalibSet(
            tokens=torch.stack([drawn[number].tokens[row] for _, number, row in order]),
            name=" + ".join(names),
            split="+".join(dict.fromkeys(one.split for one in drawn)),
            revision="; ".join(f"{one.name}: {one.revision}" for one in drawn),
            text_fingerprint=hashlib.sha256(texts.encode()).hexdigest(),
            documents=tuple(document for one in drawn for document in one.documents),
            seed=self.seed,
            draw=self.draw,
            shortfall=sum(one.shortfall for one in drawn),
            contents=tuple(content for one in drawn for content in one.contents),
            parts=tuple(drawn),
            before=drawn[0].before,
            listing=joined_listings(one.listing for one in drawn),
        )
