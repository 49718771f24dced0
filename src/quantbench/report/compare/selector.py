"""What `compare --against X` compares with: a recipe, a calibration set, a variant of either, or one run.

X is words: a recipe's option (`rtn`), `calib=SET`, settings (`quantizer.weight.bits=4`, `calib.n=64`), or a run's id.
What X does not say is as in the arm that is compared: without a recipe it is the same recipe, calibrated otherwise;
without a calibration set it is another recipe, calibrated on the same sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from quantbench.core.errors import StoreError
from quantbench.report.alike import differing, flat
from quantbench.report.arms import Arm, undrawn
from quantbench.report.columns import DATA_FREE

FORMS = (
    "X is a recipe (rtn), a calibration set (calib=wiki), a variant in one argument ('gptq quantizer.weight.bits=4'), "
    "or the first characters of a run's id"
)


@dataclass(frozen=True)
class Selector:
    """What X says. settings: dotted keys under quantizer. and calib., with their values."""

    text: str
    recipe: str | None = None
    calib: str | None = None
    run: str | None = None
    quantizer_settings: Mapping[str, Any] = field(default_factory=dict)
    calib_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_recipe(self) -> bool:
        """Whether it says which recipe."""
        return self.recipe is not None or bool(self.quantizer_settings)

    @property
    def of_calib(self) -> bool:
        """Whether it says what is calibrated on."""
        return self.calib is not None or bool(self.calib_settings)


def parse(text: str, arms: Sequence[Arm]) -> Selector:
    """Read X. Raises StoreError, which says what there is, for what is in none of the arms."""
    recipe = calib = run = None
    settings: dict[str, dict[str, Any]] = {"quantizer": {}, "calib": {}}
    for word in text.split():
        key, equals, value = word.partition("=")
        group, dot, inner = key.partition(".")
        if not equals:
            if recipe or run:
                raise StoreError(f"against {text!r}: two recipes or runs in one X. {FORMS}. {_there_is(arms)}")
            run = _run_or_recipe(word, arms)
            recipe = word if run is None else None
        elif key == "quantizer" and recipe is None:
            recipe = value
        elif key == "calib" and calib is None:
            calib = value
        elif dot and group in settings:
            settings[group][inner] = yaml.safe_load(value)
        else:
            raise StoreError(f"against {text!r}: {word!r} is not understood. {FORMS}. {_there_is(arms)}")
    found = Selector(text, recipe, calib, run, settings["quantizer"], settings["calib"])
    if not text.split() or not any(matches(arm, found) for arm in arms):
        raise StoreError(f"against {text!r}: nothing like that in these sweeps. {FORMS}. {_there_is(arms)}")
    if run is not None and (found.of_calib or found.of_recipe):
        raise StoreError(f"against {text!r}: a run says everything by itself; leave out the rest. {FORMS}")
    return found


def matches(arm: Arm, chosen: Selector) -> bool:
    """Whether the arm is what X says, as far as it says it."""
    named = {arm.first.calib, arm.calib, " + ".join(one.name for one in arm.first.calib_origins)}
    return (
        (chosen.run is None or any(run.run_id == chosen.run for run in arm.runs))
        and chosen.recipe in (None, arm.first.quantizer)
        and (chosen.calib is None or chosen.calib in named)
        and _has(recipe_of(arm), chosen.quantizer_settings)
        and _has(text_of(arm), chosen.calib_settings)
    )


def recipe_of(arm: Arm) -> dict[str, Any]:
    """The resolved settings of an arm's recipe, by dotted keys."""
    return _settings(arm, "quantizer")


def text_of(arm: Arm) -> dict[str, Any]:
    """Those of what it is calibrated on, whichever draw of it; {} for a recipe that reads none."""
    return _settings(arm, "calib")


def _settings(arm: Arm, part: str) -> dict[str, Any]:
    config = {} if arm.first.record is None else arm.first.record.config
    return flat(undrawn(config.get(part) or {}))


class Choice:
    """For each arm those that X means for it: of the same model and scale, and alike in what X does not say."""

    def __init__(self, arms: Sequence[Arm], chosen: Selector) -> None:
        self._chosen = chosen
        self._candidates = [arm for arm in arms if matches(arm, chosen)]
        by_option: dict[str, list[Arm]] = {}
        for arm in arms:
            by_option.setdefault(arm.first.quantizer, []).append(arm)
        differ = (differing(map(recipe_of, several)) for several in by_option.values())
        self._axes = {key for keys in differ for key in keys} - chosen.quantizer_settings.keys()

    def of(self, arm: Arm) -> tuple[list[Arm], str]:
        """The arms that `arm` is compared with, or none and why; no reason where it is one of them itself.

        Full precision is compared with nothing: what recipes lose from it stands in comparisons.csv. Several only for
        one that reads no data: it is compared with each calibration set of a recipe.
        """
        chosen = self._chosen
        if any(arm is one for one in self._candidates) or arm.first.full_precision:
            return [], ""
        if arm.first.data_free and chosen.of_calib and not chosen.of_recipe:
            return [], ""
        found = [one for one in self._candidates if self._fits(one, arm)]
        if not found:
            return [], f"{name_of(arm)}: not compared, nothing that {chosen.text!r} means is otherwise like it"
        if len(found) > 1 and not arm.first.data_free:
            found = [one for one in found if _sizes(one) == _sizes(arm)] or found
            found = [one for one in found if not one.first.data_free] or found
        recipes = differing(map(recipe_of, found))
        apart = recipes or ([] if arm.first.data_free else differing(map(text_of, found)))
        if len(found) > 1 and (apart or not arm.first.data_free):
            told = ", ".join(apart) or "their names"
            return [], f"{name_of(arm)}: not compared, {chosen.text!r} means {len(found)} that differ in {told}"
        return found, ""

    def _fits(self, one: Arm, arm: Arm) -> bool:
        chosen = self._chosen
        if one.model_id != arm.model_id or one.first.scale != arm.first.scale:
            return False
        if chosen.run is not None:
            return True
        ours, theirs = recipe_of(arm), recipe_of(one)
        if not chosen.of_recipe:
            return ours == theirs
        if any(ours[key] != theirs[key] for key in self._axes & ours.keys() & theirs.keys()):
            return False
        # One that reads no data is the same beside every calibration set; two that read are set beside each other.
        free = one.first.data_free or arm.first.data_free
        return chosen.of_calib or free or text_of(one) == text_of(arm)


def name_of(arm: Arm) -> str:
    """The arm in words."""
    return arm.recipe if arm.first.data_free else f"{arm.recipe} calibrated on {arm.calib}"


def _sizes(arm: Arm) -> tuple[Any, Any]:
    text = text_of(arm)
    return text.get("n"), text.get("length")


def _has(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in settings and settings[key] == value for key, value in wanted.items())


def _run_or_recipe(word: str, arms: Sequence[Arm]) -> str | None:
    """The id of the run that the word begins, unless it is a recipe."""
    if any(arm.first.quantizer == word for arm in arms):
        return None
    known = {run.run_id or "" for arm in arms for run in arm.runs}
    found = sorted(one for one in known if one.startswith(word))
    if len(found) > 1:
        raise StoreError(f"against {word!r}: {len(found)} runs begin like that: {', '.join(found[:5])}. {FORMS}")
    return found[0] if found else None


def _there_is(arms: Sequence[Arm]) -> str:
    recipes = sorted({arm.first.quantizer for arm in arms})
    sets = sorted({arm.first.calib for arm in arms} - {DATA_FREE})
    return f"There are: recipes {', '.join(recipes)}; calibration sets {', '.join(sets) or 'none'}"
