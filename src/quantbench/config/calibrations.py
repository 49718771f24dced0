"""What `calib=` selects, in full: a data set and its sampler, a mixture of several, a control, a class of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quantbench.calibration.base import AnyCalibration
from quantbench.calibration.calibration import Calibration
from quantbench.calibration.mixture import MixedSet
from quantbench.config.catalogue import Catalogue, Plain
from quantbench.config.facts import DataSet, data_set, names_in
from quantbench.core.build import fields_of, import_target, path_of, unknown_key
from quantbench.core.errors import ConfigError

DRAW = ("n", "length", "seed", "draw", "split", "allow_short", "bos")
"""Options of every calibration set: how much is drawn, and which part of what there is."""

REQUIRED = "???"
"""The value of a key that an option leaves to the command line."""

CALIBRATION_ONLY = ("with_answers", "sampler", "allow_short", "max_documents", "max_rows", "questions")
"""Keys of a data set that change what is calibrated on, and no test."""


@dataclass(frozen=True)
class Calibrations:
    """Makes calibration sets of options; resolve puts in the values of interpolations."""

    catalogue: Catalogue
    resolve: Callable[[Plain], Plain]

    def named(self, name: str, key: str, told: Mapping[str, Any] | None = None) -> DataSet:
        """The data set of an option; told: values of keys that it requires.

        Raises ConfigError for a name that is none, or that is no data set, and for what it requires and is not told.
        """
        try:
            node = self.catalogue.option("calib", name)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error
        node = node | {k: v for k, v in (told or {}).items() if node.get(k) == REQUIRED}
        for missing in (k for k, v in node.items() if v == REQUIRED):
            if told is None:
                raise ConfigError(f"{key}: calib={name} requires {missing}; name a set whose own file has it")
            where = f"eval.tasks.{name}.{missing}"
            raise ConfigError(f"{where}: this option is required; give {where}=...")
        if _is_calibration(node):
            raise ConfigError(f"{key}: calib={name} is no data set, but made of others: name those")
        return data_set(name, node, self.catalogue, self.resolve, f"calib={name}")

    def full(self, name: str, node: Mapping[str, Any]) -> Plain:
        """The component of a calibration set. node: its option as the command line changed it, resolved."""
        if not _is_calibration(node):
            chosen = data_set(name, _facts(node), self.catalogue, self.resolve, "calib")
            return self._drawn(chosen, node)
        target = str(node["_target_"])
        fields = fields_of(target, "calib")
        given = {key: value for key, value in node.items() if key in fields and value is not None}
        known = {*fields, *DRAW, "_target_", "tests", "sampler", "of", "parts"}
        if unknown := sorted(key for key, value in node.items() if value is not None and key not in known):
            raise ConfigError(unknown_key(f"calib.{unknown[0]}", sorted(known - {"_target_"})))
        if node.get("bos") not in (None, "none") and not {"bos", "mixed"} & fields:
            raise ConfigError(f"calib.bos={node['bos']}: {target} has no option bos; use calib.bos=none")
        if "of" in node:
            source = self.named(str(node["of"]), "calib.of")
            given = {**self._drawn(source, node), **given}
        if "parts" in node:
            given["mixed"] = self._mixed(node)
        return {**given, "_target_": target}

    def default_tests(self, name: str, node: Mapping[str, Any]) -> list[DataSet]:
        """What a model calibrated on it is tested on unless it is said."""
        if not _is_calibration(node):
            own = self.tested(name, node)
            said = "calib.tests" if "tests" in own.facts else f"family {own.facts['family']}.members"
            return [own if test == own.name else self.named(test, said) for test in own.default_tests]
        found: dict[str, DataSet] = {}
        for part in _weights(node) if "parts" in node else ():
            for test in self.named(part, f"calib.parts.{part}").default_tests:
                found[test] = self.named(test, f"calib={part}")
        for test in names_in(node.get("tests"), "calib.tests"):
            found[test] = self.named(test, "calib.tests")
        return list(found.values())

    def tested(self, name: str, node: Mapping[str, Any]) -> DataSet:
        """The data set calibrated on, as it is tested: what is only for calibration is as its option has it."""
        facts = _facts(node)
        if name in self.catalogue.files("calib"):
            option = self.catalogue.option("calib", name)
            facts |= {key: option.get(key) for key in CALIBRATION_ONLY}
        return data_set(name, facts, self.catalogue, self.resolve, "calib")

    def _drawn(self, chosen: DataSet, node: Mapping[str, Any]) -> Plain:
        sampler = node.get("sampler") or chosen.facts.get("sampler") or chosen.family.get("sampler")
        if sampler is None:
            raise ConfigError(f"calib.sampler: family {chosen.facts['family']} names none; give one")
        allow_short = chosen.facts.get("allow_short")
        own = {key: node[key] for key in DRAW if node.get(key) is not None}
        return {
            "_target_": path_of(Calibration),
            "source": chosen.text(),
            "sampler": self.catalogue.part("sampler", sampler),
            **({} if allow_short is None else {"allow_short": allow_short}),
            **own,
        }

    def _mixed(self, node: Mapping[str, Any]) -> Plain:
        """The parts that have a weight, in alphabetical order."""
        found: Plain = {}
        own = {key: node[key] for key in DRAW if node.get(key) is not None}
        for name, weight in _weights(node).items():
            drawn = self._drawn(self.named(name, f"calib.parts.{name}"), own)
            found[name] = {"_target_": path_of(MixedSet), "weight": weight, "set": drawn}
        return found


def _is_calibration(node: Mapping[str, Any]) -> bool:
    """Whether an option is a calibration set itself, and not a data set that one can be drawn from."""
    return "_target_" in node and hasattr(import_target(node["_target_"], "calib"), AnyCalibration.draw_set.__name__)


def _facts(node: Mapping[str, Any]) -> Plain:
    """What of an option is the data set's."""
    return {key: value for key, value in node.items() if key not in DRAW or key == "allow_short"}


def _weights(node: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name): weight for name, weight in sorted((node["parts"] or {}).items()) if weight is not None}
    for name, weight in found.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"calib.parts.{name}={weight!r}: a weight is a number; null leaves a part out")
    return {name: float(weight) for name, weight in found.items()}
