"""Building components from resolved configuration. Every `_target_` in the project goes through `build`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from quantbench.core.errors import ConfigError, QuantbenchError

T = TypeVar("T")

LARGEST = 2**53
"""Beyond it a 64-bit float, which JSON and tables may read a number as, does not hold every whole number."""

DESCRIPTION = "about"
"""The key of descriptive fields: never passed on unless a component asks for it, never part of an identity."""


def build(spec: Any, expected: Callable[..., T], key: str) -> T:
    """The component a mapping with `_target_` describes, with the components nested in it.

    key is where the mapping stands in the configuration, for messages. Raises ConfigError for an unknown, missing or
    badly typed option, a value out of range, or an object that is not an `expected`.
    """
    if not isinstance(spec, dict) or "_target_" not in spec:
        raise ConfigError(f"{key}: expected a mapping with `_target_` (an import path), found {spec!r}")
    made = _value(spec, key)
    assert isinstance(expected, type)
    if not isinstance(made, expected):
        raise ConfigError(f"{key}: {spec['_target_']} is not a {expected.__name__}")
    return cast("T", made)


def _value(spec: Any, key: str) -> Any:
    if isinstance(spec, dict):
        if "_target_" in spec:
            return _component(spec, key)
        return {k: _value(v, f"{key}.{k}") for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return tuple(_value(v, f"{key}[{i}]") for i, v in enumerate(spec))
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        _check_number(spec, key)
    return spec


def _check_number(number: float, key: str) -> None:
    """Raise ConfigError for what cannot be stored in every file of results, or would come back as another number."""
    if isinstance(number, float) and not math.isfinite(number):
        raise ConfigError(f"{key}={number}: expected a finite number")
    if isinstance(number, int) and abs(number) > LARGEST:
        raise ConfigError(f"{key}={number}: whole numbers go up to {LARGEST} (2^53) and down to -{LARGEST}")


def _component(spec: dict[str, Any], key: str) -> Any:
    target = import_target(spec["_target_"], key)
    names = option_names(target, key)
    given = {k: v for k, v in spec.items() if k != "_target_" and (k != DESCRIPTION or k in names)}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ConfigError(unknown_key(_joined(key, unknown[0]), names))
    options = {k: _value(v, _joined(key, k)) for k, v in given.items()}
    try:
        return target(**options)
    except ValidationError as error:
        raise ConfigError(_explain(key, options, error)) from error
    except QuantbenchError as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from error


def import_target(path: Any, key: str) -> Any:
    """The class or function at an import path; ConfigError if there is none."""
    module_name, _, name = str(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_: {path!r} cannot be imported: {error}") from error


def option_names(target: Any, key: str) -> list[str]:
    """The options a component takes; ConfigError if it takes **kwargs, which would hide misspellings."""
    if dataclasses.is_dataclass(target):
        return [f.name for f in dataclasses.fields(target) if f.init]
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise ConfigError(f"{key}: {target!r} takes **kwargs, so misspelt options could not be found: name its options")
    return [p.name for p in parameters]


def fields_of(target: str, key: str) -> frozenset[str]:
    """Names of the options of a component by its import path; ConfigError if it cannot be imported."""
    return frozenset(option_names(import_target(target, key), key))


def path_of(kind: type) -> str:
    """The import path of a class, as a yaml names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def unknown_key(key: str, valid: list[str]) -> str:
    """The message for an unknown key: what was meant, and what is possible."""
    return f"{key}: no such option.{_meant(key.rpartition('.')[2], valid)} Valid here: {', '.join(sorted(valid))}"


def unknown_choice(group: str, name: str, valid: Sequence[str]) -> str:
    """The message for a group that has no option of this name."""
    return f"{group}={name}: no such choice.{_meant(name, valid)} There are: {', '.join(sorted(valid))}"


def _meant(name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _joined(*parts: str) -> str:
    """A dotted key; the root of the configuration is the empty part."""
    return ".".join(part for part in parts if part)


def _explain(key: str, given: Mapping[str, Any], error: ValidationError) -> str:
    """What is wrong with the options of a component, one line an option."""
    found: dict[str, list[str]] = {}
    for one in error.errors():
        where = _joined(key, *_path_in(given, one["loc"]))
        message = _WORDS.get(one["type"], one["msg"].removeprefix("Value error, "))
        if one["type"] == "is_instance_of":
            message = f"input should be a {_PLAIN.get(one['ctx']['class'], one['ctx']['class'])}"
        if one["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
            head, said = where, "this option is required"
        elif one["type"] == "value_error" and not one["loc"]:
            head, said = where, message
        else:
            listed = isinstance(one["input"], str) and one["type"] in {"tuple_type", "list_type"}
            head = f"{where}={_brief(one['input'])}"
            said = f"{message[0].lower()}{message[1:]}" + (f": {where}=[{one['input']}]" if listed else "")
        # What is of one type or another is refused by each of them in turn.
        others = found.setdefault(head, [])
        if (said := said.removeprefix("input should be ") if others else said) not in others:
            others.append(said)
    return "\n".join(f"{head}: {', or '.join(said)}" for head, said in found.items())


_WORDS = {
    "dict_type": "input should be a mapping, {KEY: VALUE}",
    "bool_type": "input should be true or false",
    "none_required": "input should be null",
    "path_type": "input should be a file or folder",
}
"""Of a kind of error, where pydantic speaks of Python's types."""

_PLAIN = {"Path": "file or folder"}


def _path_in(value: Any, path: Sequence[int | str]) -> list[str]:
    """The part of an error's path that leads into the value: pydantic adds the names of the types it has tried."""
    kept: list[str] = []
    for part in path:
        if isinstance(value, Mapping) and (part in value or not kept):
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        kept.append(str(part))
    return kept


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
