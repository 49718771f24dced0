"""What `eval=` selects, in full: tests on data sets by their names, tasks of lm-eval, suites of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quantbench.config.calibrations import Calibrations
from quantbench.config.catalogue import Catalogue, Plain
from quantbench.config.facts import DataSet, data_set, set_keys
from quantbench.core.build import fields_of, path_of, unknown_key
from quantbench.core.errors import ConfigError
from quantbench.core.origin import UNKNOWN, Origin

LM_EVAL_TASK = "quantbench.tasks.lm_eval.task.LmEvalTask"
LM_EVAL_OPTIONS = ("limit", "include_path", "seed", "max_length", "batch_size")
MADE = ("source", "data", "template", "origin", "task")
"""Options of tasks that follow from what is tested."""


@dataclass(frozen=True)
class Evaluations:
    """Makes tasks of an option of `eval`; resolve puts in the values of interpolations."""

    catalogue: Catalogue
    resolve: Callable[[Plain], Plain]

    def full(self, node: Mapping[str, Any], calib_name: str, calib: Mapping[str, Any]) -> dict[str, Plain]:
        """The tasks by name: what is named under `sets` and `names`, in `suites`, or else the default tests of `calib`.

        Raises ConfigError for a name that is none, that stands twice, and for an option that no task takes.
        """
        calibrations = Calibrations(self.catalogue, self.resolve)
        tests: dict[str, Plain] = {}
        if self.is_auto(node):
            for chosen in self._by_default(calibrations, node, calib_name, calib):
                self._add(tests, chosen.name, self._test(chosen, node))
        else:
            self._collect(tests, node, lambda name: self._chosen(calibrations, name, calib_name, calib))
        for name, own in (node.get("tasks") or {}).items():
            if "_target_" in own:
                self._add(tests, str(name), dict(own))
            elif name not in tests:
                raise ConfigError(f"eval.tasks.{name}: no such test here; tests: {', '.join(tests) or 'none'}")
        if not tests:
            raise ConfigError("eval: it names no test; give eval.sets=[NAME,...] or eval.names=[TASK,...]")
        if node.get("shots") is not None and not any("shots" in task for task in tests.values()):
            raise ConfigError(f"eval.shots={node['shots']}: none of the tests takes worked examples")
        return tests

    @staticmethod
    def _by_default(
        made: Calibrations, node: Mapping[str, Any], calib_name: str, calib: Mapping[str, Any]
    ) -> list[DataSet]:
        """The default tests; of a grid of several files of the user's (`files`: path -> name) those of all of them."""
        found = made.default_tests(calib_name, calib)
        files: Mapping[str, str] = node.get("files") or {}
        own = [made.tested(calib_name, {**calib, "path": path, "name": name}) for path, name in files.items()]
        return [one for one in found if one.name not in files.values()] + own

    @staticmethod
    def is_auto(node: Mapping[str, Any]) -> bool:
        """Whether the calibration set says what is tested."""
        explicit = [task for task in (node.get("tasks") or {}).values() if "_target_" in task]
        return node.get("sets") is None and not (node.get("names") or node.get("suites") or explicit)

    def _collect(self, tests: dict[str, Plain], node: Mapping[str, Any], chosen: Callable[[str], DataSet]) -> None:
        for suite in node.get("suites") or ():
            own = {key: value for key, value in node.items() if key not in {"sets", "names", "suites", "shots", "suffix"}}
            self._collect(tests, {**own, **self.catalogue.option("eval", str(suite))}, chosen)
        suffix = node.get("suffix") or ""
        for name in node.get("sets") or ():
            self._add(tests, f"{name}{suffix}", self._test(chosen(str(name)), node, f"{name}{suffix}"))
        for name in node.get("names") or ():
            self._add(tests, f"{name}{suffix}", self._lm_eval(str(name), node))

    def _add(self, tests: dict[str, Plain], name: str, task: Plain) -> None:
        if name in tests:
            raise ConfigError(f"eval: the test {name} stands there twice")
        tests[name] = task

    def _chosen(self, made: Calibrations, name: str, calib_name: str, calib: Mapping[str, Any]) -> DataSet:
        """A data set by its name; the one that is calibrated on is tested as it is given there."""
        if name == calib_name and "_target_" not in calib:
            return made.tested(name, calib)
        return made.named(name, "eval.sets")

    def _test(self, chosen: DataSet, node: Mapping[str, Any], name: str | None = None) -> Plain:
        own = (node.get("tasks") or {}).get(name or chosen.name, {})
        scoring = self.catalogue.part("scoring", chosen.family["scoring"])
        fields = fields_of(str(scoring["_target_"]), "scoring") - set(MADE)
        facts = {key: value for key, value in own.items() if key not in fields}
        if unknown := sorted(set(facts) - set_keys()):
            known = sorted({*fields, *set_keys()})
            raise ConfigError(unknown_key(f"eval.tasks.{name or chosen.name}.{unknown[0]}", known))
        if facts:
            both = {**chosen.facts, **facts}
            chosen = data_set(chosen.name, both, self.catalogue, self.resolve, f"eval.tasks.{chosen.name}")
        shots = {} if node.get("shots") is None or "shots" not in fields else {"shots": node["shots"]}
        testing = {**chosen.family.get("testing", {}), **chosen.facts.get("testing", {})}
        options = {key: value for key, value in own.items() if key in fields}
        read = {"source": chosen.text()} if chosen.is_text else {"data": chosen.data(), "template": chosen.template}
        return {**self.resolve({**scoring, **testing, **shots}), **options, **read}

    def _lm_eval(self, name: str, node: Mapping[str, Any]) -> Plain:
        known = {} if node.get("include_path") else self.catalogue.lm_eval().get(name, {})
        told = {key: known[key] for key in ("family", "domain", "language", "relatives") if key in known}
        if known:
            told |= {
                "size": str(known.get("tested", "")),
                "note": f"{known.get('hub', '')}: {known.get('columns', '')}",
            }
        else:
            told = {"family": UNKNOWN, **(node.get("origin") or {})}
        origin = {"_target_": path_of(Origin), "name": known.get("name", name), **told}
        own = {key: node[key] for key in ("shots", *LM_EVAL_OPTIONS) if node.get(key) is not None}
        own |= (node.get("tasks") or {}).get(f"{name}{node.get('suffix') or ''}", {})
        return {"_target_": LM_EVAL_TASK, "task": name, "origin": origin, **own}
