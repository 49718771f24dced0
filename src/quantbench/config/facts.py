"""A data set's facts, as its yaml states them flat, made the components that read it.

A set says where it lies (`hub`, `path` or `package`), which columns it has, and what it is; its family says how such
rows are read, how they become a prompt, and how a test on them is scored. Which key belongs to which component follows
from the components' own fields, so that a misspelt one is nobody's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from quantbench.config.catalogue import Catalogue, Plain
from quantbench.config.label_rules import by_value, label_rule
from quantbench.core.build import fields_of, path_of, unknown_key
from quantbench.core.errors import ConfigError
from quantbench.core.origin import FAMILIES, Origin
from quantbench.datasets.fill import slots

SOURCES = {
    "path": "quantbench.datasets.files.FileSource",
    "package": "quantbench.datasets.package.PackageSource",
    "hub": "quantbench.datasets.hub.HubSource",
    "files": "quantbench.datasets.hub.HubSource",
}
"""The key that says where a set lies -> the component that reads it; the first that is given counts."""

ORIGIN = ("domain", "language", "relatives", "licence", "size", "tried", "note")
LABELS = ("label", "labels", "cuts")
OF_EXAMPLES = ("columns", "template", "with_answers", "joiner")
OWN = ("name", "family", "tests", "testing", "sampler", "allow_short")
"""Keys that are read here, or by what uses the set."""

EXAMPLES = "quantbench.datasets.rendered.RenderedExamples"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set's facts, its family's taken in, and what follows from them.

    name    its name in results: that of its option, unless it has a `name`
    key     where it stands, for messages
    facts   keys that are set
    said    those of them that it says itself; the others are its family's, which need not concern it
    family  its family's yaml
    resolve  puts in the values of interpolations
    """

    name: str
    key: str
    facts: Plain
    said: frozenset[str]
    family: Plain
    catalogue: Catalogue
    resolve: Callable[[Plain], Plain]

    @property
    def is_text(self) -> bool:
        """Whether it is running text; else its rows are examples for a prompt."""
        return "template" not in self.family

    @property
    def default_tests(self) -> list[str]:
        """What a model calibrated on it is tested on unless it is said: its family's members, and itself."""
        if "tests" in self.facts:
            return names_in(self.facts["tests"], f"{self.key}.tests")
        members = [str(name) for name in self.family.get("members", ())]
        return members if self.name in members else [*members, self.name]

    @property
    def template(self) -> Plain:
        """The template of its prompts."""
        return self.catalogue.part("template", self.facts.get("template") or self.family["template"])

    def origin(self) -> Plain:
        """What is known of it, for a component."""
        kind = self.family.get("kind")
        if kind not in FAMILIES:
            raise ConfigError(f"family {self.facts['family']}: kind={kind!r}; the kinds are {', '.join(FAMILIES)}")
        told = {key: self.facts[key] for key in ORIGIN if key in self.facts}
        path = {"path": str(self.facts["path"])} if "path" in self.facts else {}
        return {"_target_": path_of(Origin), "name": self.name, "family": kind, **told, **path}

    def data(self) -> Plain:
        """The component that reads its rows, or its text."""
        if "_target_" in self.facts:
            return self._own_class()
        reads = str(self.family["reads"])
        own = fields_of(reads, f"family {self.facts['family']}.reads") - {"source", "origin"}
        source, of_source = self._source()
        known = {*own, *of_source, *ORIGIN, *OWN, *(LABELS if "label" in own else ())}
        if not self.is_text:
            known |= {*OF_EXAMPLES, *({"text"} & set(slots(self.template["item"])))}
        self._check(known)
        given = {key: self.facts[key] for key in own & set(self.facts)}
        if "render" in given:
            given.pop("text", None)
        if isinstance(given.get("tags"), Mapping):
            given["tags"] = by_value(f"{self.key}.tags", given["tags"])
        if not self.is_text and "columns" in own:
            given["columns"] = self._columns()
        if "label" in own and "labels" in self.facts:
            given["label"] = label_rule(self.key, self.facts)
        if "render" in given:
            given["render"] = self.catalogue.part("render", given["render"])
        return {"_target_": reads, "source": source, "origin": self.origin(), **given}

    def text(self) -> Plain:
        """The component that a calibration set draws from: examples go through the template they are tested with."""
        if self.is_text:
            return self.data()
        told: Plain = {key: self.facts[key] for key in ("with_answers", "joiner") if key in self.facts}
        return {"_target_": EXAMPLES, "data": self.data(), "template": self.template, **told}

    def _check(self, known: Set[str]) -> None:
        """Refuse what nothing reads, and of the family what no set has."""
        if unknown := sorted((self.said - known) | (set(self.facts) - self.said - known - set_keys())):
            raise ConfigError(unknown_key(f"{self.key}.{unknown[0]}", sorted(known - {"_target_"})))

    def _own_class(self) -> Plain:
        """A class of the user's that reads the set: it takes its own options, and the origin if it has one."""
        own = fields_of(str(self.facts["_target_"]), self.key)
        known = {*own, *ORIGIN, *OWN, "_target_", *(() if self.is_text else OF_EXAMPLES)}
        self._check(known)
        origin = {"origin": self.origin()} if "origin" in own else {}
        return {key: value for key, value in self.facts.items() if key in {*own, "_target_"}} | origin

    def _source(self) -> tuple[Plain, frozenset[str]]:
        """The component that reads rows, and the keys that it takes."""
        said = [key for key in SOURCES if key in self.facts]
        if not said:
            raise ConfigError(f"{self.key}: where does it lie? Give one of {', '.join(SOURCES)}")
        target = SOURCES[said[0]]
        others = [key for key in said[1:] if SOURCES[key] != target]
        if others:
            raise ConfigError(f"{self.key}: {said[0]} and {others[0]} both say where it lies: give one of them")
        fields = fields_of(target, self.key)
        given = {key: self.facts[key] for key in fields & set(self.facts)}
        if "hub" in given and isinstance(given["hub"], str):
            given["hub"] = [given["hub"]]
        if target == SOURCES["path"] and "note" in self.facts:
            given["where"] = self.facts["note"]
        return {"_target_": target, **given}, fields

    def _columns(self) -> Plain:
        """Slot of the template -> column: the slot's own name, unless it is said."""
        named = {slot: slot for slot in slots(self.template["item"])}
        if "answer" in _exam_columns(self.family):
            named["answer"] = "answer"
        if "text" in self.facts:
            named["text"] = self.facts["text"]
        return {**named, **self.facts.get("columns", {})}


def data_set(
    name: str,
    node: Mapping[str, Any],
    catalogue: Catalogue,
    resolve: Callable[[Plain], Plain],
    key: str,
) -> DataSet:
    """The data set of an option's flat keys; those that are null are not set. Raises ConfigError for its family."""
    given = {str(k): v for k, v in node.items() if v is not None}
    if "family" not in given:
        raise ConfigError(f"{key}.family: this option is required; families: {', '.join(catalogue.files('family'))}")
    family = catalogue.family(str(given["family"]))
    facts = resolve({**family.get("common", {}), **given})
    for text in ("text", "joiner"):
        if text in facts:
            facts[text] = _written(facts[text])
    return DataSet(str(facts.get("name", name)), key, facts, frozenset(given), family, catalogue, resolve)


def names_in(value: Any, key: str) -> list[str]:
    """The names in a list, none of null. Raises ConfigError for a text, which would be read letter by letter."""
    if isinstance(value, str):
        raise ConfigError(f"{key}={value}: expected a list of names; give {key}=[{value}]")
    return [str(name) for name in value or ()]


def _written(text: Any) -> Any:
    r"""A text as a command line can say it: with \n and \t, or [subject,body] for columns with a blank line between."""
    if isinstance(text, list | tuple):
        return "\n\n".join(f"{{{column}}}" for column in text)
    return text.replace("\\n", "\n").replace("\\t", "\t") if isinstance(text, str) else text


def set_keys() -> frozenset[str]:
    """Every key that a data set may have, whatever it is."""
    found = {*ORIGIN, *LABELS, *OF_EXAMPLES, *OWN}
    for target in dict.fromkeys(SOURCES.values()):
        found |= fields_of(target, "")
    for module in ("text.TextSet", "labelled.LabelledSet", "answers.AnswerSet", "spans.SpanSet", "exams.ExamSet"):
        found |= fields_of(f"quantbench.datasets.{module}", "")
    return frozenset(found - {"source", "origin"})


def _exam_columns(family: Mapping[str, Any]) -> Iterable[str]:
    return ("answer",) if family.get("kind") == "exam" else ()
