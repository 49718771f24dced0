"""How far a test distribution lies from what a model was calibrated on.

A data set has a name, a family (the kind of its task), a language, and relatives: other data sets, or sources, that its
text was taken from as well. The relation of a calibration set to a test set follows from these:

  in-distribution  both are the same data set (its train and its test side)
  mixed            the calibration set is a mixture, and one of its parts is that data set
  related          another data set with a common relative: not the same rows, but not independent either
  near OOD         same family and same language, no common relative
  far OOD          another family or another language
  control          calibrated on no distribution at all: random tokens, or shuffled text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from quantbench.core.component import component

IN_DISTRIBUTION, MIXED, RELATED, NEAR, FAR, CONTROL = (
    *("in-distribution", "mixed", "related"),
    *("near OOD", "far OOD", "control"),
)
RELATIONS = (IN_DISTRIBUTION, MIXED, RELATED, NEAR, FAR, CONTROL)

CONTROL_FAMILY = "control"
UNKNOWN = "unknown"

Family = Literal[
    "lm",
    "instruct",
    "sa",
    "nli",
    "td",
    "eqa",
    "ner",
    "exam",
    "bias",
    "commonsense",
    "grammar",
    "math",
    "qa",
    "reading",
    "reasoning",
    "science",
    "truthfulness",
    "control",
    "unknown",
]
"""Kinds of data: running text, instructions, sentiment, inference, toxicity, extractive questions, entities, exams, ...

`unknown` is a task of lm-eval that nobody has described: no relation can be told."""

FAMILIES: tuple[str, ...] = get_args(Family)


@component
class Origin:
    """What is known of a data set. Name, family, language, relatives and path decide the relation of two of them.

    domain     what its text is about, in words
    relatives  names of data sets or sources that share text with it
    licence, size, tried, note  for the reader: under which terms, how much, what of it was read here, what to know
    path       where it is read from, since two files of the user's may have one name: "" if that is no matter of a
               path, None if it is not known, so that the name alone decides
    """

    name: Annotated[str, Field(min_length=1)]
    family: Family
    domain: str = UNKNOWN
    language: Annotated[str, Field(min_length=1)] = UNKNOWN
    relatives: tuple[str, ...] = ()
    licence: str = ""
    size: str = ""
    tried: str = ""
    note: str = ""
    path: str | None = ""

    @property
    def shared(self) -> frozenset[str]:
        """Everything its text is known to come from, itself included."""
        return frozenset(self.relatives) | {self.name}


def relation(calibrated: Sequence[Origin], test: Origin) -> str | None:
    """One of RELATIONS; None where no language or family is known, or there is no calibration.

    calibrated  the one origin of a calibration set, or those of a mixture's parts: then it is as near as its nearest
                part, but a part that is the test distribution itself makes it "mixed"
    """
    found = [_one(origin, test) for origin in calibrated]
    if len(found) > 1 and IN_DISTRIBUTION in found:
        return MIXED
    return min((name for name in found if name is not None), key=RELATIONS.index, default=None)


def _one(calibrated: Origin, test: Origin) -> str | None:
    if calibrated.family == CONTROL_FAMILY:
        return CONTROL
    if calibrated.name == test.name and _same_file(calibrated, test):
        return IN_DISTRIBUTION
    if calibrated.name != test.name and calibrated.shared & test.shared:
        return RELATED
    if UNKNOWN in (calibrated.family, test.family):
        return None
    if calibrated.family != test.family:
        return FAR
    if UNKNOWN in (calibrated.language, test.language):
        return None
    return NEAR if calibrated.language == test.language else FAR


def _same_file(calibrated: Origin, test: Origin) -> bool:
    """Two files of the user's share the name `local` unless they are given others."""
    return test.path is None or calibrated.path == test.path


def in_distribution(found: str | None, calibrated: Sequence[Origin]) -> bool | None:
    """Whether the calibration set is drawn from the test distribution; None if in part, or without calibration."""
    return None if not calibrated or found == MIXED else found == IN_DISTRIBUTION
