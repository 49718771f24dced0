"""`label`, `labels` and `cuts` of a data set made the rule by which a row gets its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbench.core.errors import ConfigError
from quantbench.datasets.values import as_yaml

Plain = dict[str, Any]


def label_rule(key: str, facts: Mapping[str, Any]) -> Plain:
    """`labels` as a mapping names a column's values; as a list, the intervals between `cuts`.

    Raises ConfigError for what is neither, for values that are named twice, and for what YAML reads otherwise than it
    is written: an unquoted yes or no.
    """
    label, labels = facts.get("label", "label"), facts["labels"]
    if "cuts" in facts:
        columns = [label] if isinstance(label, str) else list(label)
        at = [float(cut) for cut in facts["cuts"]]
        texts = [None if text is None else label_text(f"{key}.labels", text) for text in labels]
        return {"_target_": "quantbench.datasets.labelled.CutLabel", "columns": columns, "at": at, "labels": texts}
    if not isinstance(labels, Mapping):
        raise ConfigError(
            f"{key}.labels={labels!r}: expected a mapping of the column's values to the labels' texts, for instance "
            "{1: positive, 0: negative}; a list of texts needs `cuts`, the bounds between them"
        )
    if not isinstance(label, str):
        raise ConfigError(f"{key}.label={label!r}: the name of one column, where `labels` names its values")
    meanings = by_value(f"{key}.labels", labels)
    named = {value: label_text(f"{key}.labels.{value}", text) for value, text in meanings.items() if text is not None}
    drop = [value for value, text in meanings.items() if text is None]
    return {"_target_": "quantbench.datasets.labelled.MapLabel", "column": label, "map": named, "drop": drop}


def by_value(key: str, meanings: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping with a column's values as they are compared: 1 and 1.0 are "1".

    Raises ConfigError for an unquoted yes, no, true or false, and for values that are the same when compared.
    """
    found: dict[str, Any] = {}
    for value, meaning in meanings.items():
        if isinstance(value, bool):
            raise ConfigError(f"{key}: {_unquoted(value)}, or '{str(value).lower()}' for a column of true and false")
        name = as_yaml(value, key)
        if name in found:
            raise ConfigError(f"{key}: the value {name} stands there twice, as a number and as a text; leave one out")
        found[name] = meaning
    return found


def label_text(key: str, text: Any) -> str:
    """A label's text. Raises ConfigError for an unquoted yes or no, and for what is no text or number."""
    if isinstance(text, bool):
        raise ConfigError(f"{key}: {_unquoted(text)}")
    if not isinstance(text, str | int | float) or not str(text).strip():
        raise ConfigError(f"{key}={text!r}: expected the label's text; null leaves its rows out")
    return str(text)


def _unquoted(value: bool) -> str:
    written = "yes, on or true" if value else "no, off or false"
    return (
        f"YAML reads an unquoted {written} as a truth value: put it in quotes as the word that is meant, 'yes' or 'no'"
    )
