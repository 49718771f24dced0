"""What `eval=` selects, in full: tests on data sets by their names, tasks of lm-eval, suites of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.config.calibrations import Calibrations
from quantbench.config.catalogue import Catalogue, Plain
from quantbench.config.facts import DataSet, data_set, names_in, set_keys
from quantbench.core.build import fields_of, path_of, unknown_key
from quantbench.core.errors import ConfigError
from quantbench.core.origin import UNKNOWN, Origin
from quantbench.tasks.lm_eval.catalogue import catalogue_origin

LM_EVAL_TASK = "quantbench.tasks.lm_eval.task.LmEvalTask"
LM_EVAL_OPTIONS = ("limit", "include_path", "seed", "max_length", "batch_size")
OWN = ("sets", "names", "suites", "files")
"""What an option of `eval` says for itself, and not for the suites that are a part of it."""

OF_TASKS = ("shots", "chat")
"""What an option of `eval` says for all of its tests that have such an option."""

KEYS = (*OWN, "tasks", *OF_TASKS, "suffix", "origin", *LM_EVAL_OPTIONS)

MADE = ("source", "data", "template", "origin", "task")
"""Options of tasks that follow from what is tested."""

Chosen = Callable[[str, Mapping[str, Any]], DataSet]
"""A data set by its name; and the test's own options, which give what the set's option requires (`path: ???`)."""


@dataclass(frozen=True)
class Evaluations:
    """Makes tasks of an option of `eval`; resolve puts in the values of interpolations."""

    catalogue: Catalogue
    resolve: Callable[[Plain], Plain]

    def full(self, node: Mapping[str, Any], calib_name: str, calib: Mapping[str, Any]) -> dict[str, Plain]:
        """The tasks by name: what is named under `sets` and `names`, in `suites`, or else the default tests of `calib`.

        Raises ConfigError for a name that is none, that stands twice, and for an option that no task takes.
        """
        _check_keys(node, "eval")
        made = Calibrations(self.catalogue, self.resolve)
        tests: dict[str, Plain] = {}
        if self.is_auto(node):
            for chosen in self._by_default(made, node, calib_name, calib):
                name = f"{chosen.name}{node.get('suffix') or ''}"
                self._add(tests, name, self._test(chosen, node, name))
        else:
            tests = self._named(node, lambda name, told: self._chosen(made, name, told, calib_name, calib))
        _check_names(node, tests, "eval")
        if not tests:
            raise ConfigError("eval: it names no test; give eval.sets=[NAME,...] or eval.names=[TASK,...]")
        self._check_used(node, tests)
        shots = node.get("shots")
        if shots is not None and not any(task.get("shots") == shots for task in tests.values()):
            raise ConfigError(f"eval.shots={shots}: none of the tests takes so many worked examples")
        if node.get("chat") and not any(task.get("chat") for task in tests.values()):
            raise ConfigError(
                "eval.chat=true: none of the tests has prompts for a chat template, which those of lm-eval have and "
                "those whose answers are generated"
            )
        return tests

    def _check_used(self, node: Mapping[str, Any], tests: Mapping[str, Plain]) -> None:
        """Raise ConfigError for an option of lm-eval's tasks that concerns none of the tests."""
        of_lm_eval = [str(task["task"]) for task in tests.values() if task.get("_target_") == LM_EVAL_TASK]
        for key in ("include_path", "max_length"):
            if node.get(key) is not None and not of_lm_eval:
                raise ConfigError(
                    f"eval.{key}: only tasks of lm-eval have it, and none is tested; give eval.names=[TASK]"
                )
        if node.get("origin") and not node.get("include_path") and set(of_lm_eval) <= set(self.catalogue.lm_eval()):
            which = f"{', '.join(of_lm_eval)}: quantbench list lm_eval describes it" if of_lm_eval else "none is tested"
            raise ConfigError(f"eval.origin: it is of tasks of lm-eval that are not described here ({which})")

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
        tasks = (node.get("tasks") or {}).values()
        explicit = any(isinstance(task, Mapping) and "_target_" in task for task in tasks)
        return node.get("sets") is None and not (node.get("names") or node.get("suites") or explicit)

    def _named(self, node: Mapping[str, Any], chosen: Chosen, within: Sequence[str] = ()) -> dict[str, Plain]:
        """The tests that an option names. within: the suites that it is a part of."""
        tests: dict[str, Plain] = {}
        tasks, suffix = node.get("tasks") or {}, node.get("suffix") or ""
        for suite in names_in(node.get("suites"), "eval.suites"):
            for name, task in self._suite(suite, node, chosen, within).items():
                self._add(tests, f"{name}{suffix}", task)
        for one in names_in(node.get("sets"), "eval.sets"):
            name = f"{one}{suffix}"
            self._add(tests, name, self._test(chosen(one, tasks.get(name, {})), node, name))
        for one in names_in(node.get("names"), "eval.names"):
            self._add(tests, f"{one}{suffix}", self._lm_eval(one, node))
        for name, own in tasks.items():
            if "_target_" in own:
                self._add(tests, str(name), dict(own))
        return tests

    def _suite(self, suite: str, node: Mapping[str, Any], chosen: Chosen, within: Sequence[str]) -> dict[str, Plain]:
        """The tests of another option that `node` takes over: what that one says goes before what `node` says."""
        if suite in within:
            raise ConfigError(f"eval.suites: {suite} is a part of itself ({' > '.join([*within, suite])})")
        option, suffix = self.resolve(self.catalogue.option("eval", suite)), node.get("suffix") or ""
        _check_keys(option, f"eval={suite}")
        own: Plain = dict(option.get("tasks") or {})
        for name, task in (node.get("tasks") or {}).items():
            inner = str(name).removesuffix(suffix)
            if "_target_" not in task:
                own[inner] = {**own.get(inner, {}), **task}
        outer = {key: value for key, value in node.items() if key not in {*OWN, "suffix"}}
        said = {key: value for key, value in option.items() if value is not None}
        tests = self._named({**outer, **said, "tasks": own}, chosen, (*within, suite))
        _check_names(option, tests, f"eval={suite}")
        if not tests:
            raise ConfigError(f"eval.suites: {suite} names no test, so it cannot be a part of others")
        return tests

    def _add(self, tests: dict[str, Plain], name: str, task: Plain) -> None:
        if name in tests:
            raise ConfigError(f"eval: the test {name} stands there twice")
        tests[name] = task

    def _chosen(
        self, made: Calibrations, name: str, told: Mapping[str, Any], calib_name: str, calib: Mapping[str, Any]
    ) -> DataSet:
        """See Chosen; the set that is calibrated on is tested as it is given there."""
        if name == calib_name and calib.get("family") is not None:
            return made.tested(name, calib)
        return made.named(name, "eval.sets", told)

    def _test(self, chosen: DataSet, node: Mapping[str, Any], name: str) -> Plain:
        own = (node.get("tasks") or {}).get(name, {})
        family = self.catalogue.family(str(own["family"])) if "family" in own else chosen.family
        scoring = self.catalogue.part("scoring", family["scoring"])
        fields = fields_of(str(scoring["_target_"]), "scoring") - set(MADE)
        facts = {key: value for key, value in own.items() if key not in fields}
        if unknown := sorted(set(facts) - set_keys()):
            known = sorted({*fields, *set_keys()})
            raise ConfigError(unknown_key(f"eval.tasks.{name}.{unknown[0]}", known))
        if facts:
            both = {**chosen.facts, **facts}
            chosen = data_set(chosen.name, both, self.catalogue, self.resolve, f"eval.tasks.{name}")
        said = {key: node[key] for key in OF_TASKS if key in fields and node.get(key) is not None}
        testing = {**chosen.family.get("testing", {}), **chosen.facts.get("testing", {})}
        options = {key: value for key, value in own.items() if key in fields}
        read = {"source": chosen.text()} if chosen.is_text else {"data": chosen.data(), "template": chosen.template}
        return {**self.resolve({**scoring, **testing, **said}), **options, **read}

    def _lm_eval(self, name: str, node: Mapping[str, Any]) -> Plain:
        known = None if node.get("include_path") else self.catalogue.lm_eval().get(name)
        if known is None:
            told = {"name": name, "family": UNKNOWN, **(node.get("origin") or {})}
        else:
            told = dataclasses.asdict(catalogue_origin(name, known))
            told["relatives"] = list(told["relatives"])
        origin = {"_target_": path_of(Origin), **{key: value for key, value in told.items() if value}}
        own = {key: node[key] for key in (*OF_TASKS, *LM_EVAL_OPTIONS) if node.get(key) is not None}
        own |= (node.get("tasks") or {}).get(f"{name}{node.get('suffix') or ''}", {})
        return {"_target_": LM_EVAL_TASK, "task": name, "origin": origin, **own}


def _check_keys(node: Mapping[str, Any], key: str) -> None:
    """An option file may hold any key: Hydra checks only those of a command line."""
    if unknown := sorted(set(map(str, node)) - set(KEYS)):
        raise ConfigError(unknown_key(f"{key}.{unknown[0]}", sorted(KEYS)))
    for name, own in (node.get("tasks") or {}).items():
        if not isinstance(own, Mapping):
            raise ConfigError(f"{key}.tasks.{name}={own!r}: expected options of the test: {key}.tasks.{name}.KEY=VALUE")


def _check_names(node: Mapping[str, Any], tests: Mapping[str, Plain], key: str) -> None:
    for name in node.get("tasks") or {}:
        if str(name) not in tests:
            raise ConfigError(f"{key}.tasks.{name}: no such test here; tests: {', '.join(tests) or 'none'}")
