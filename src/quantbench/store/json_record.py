"""Records on disk: dataclasses as versioned JSON, strict when they are read back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from pydantic import TypeAdapter, ValidationError

from quantbench.core.errors import StoreError
from quantbench.core.version import __version__

SCHEMA_VERSION = 4
"""Version of the stored form of records, scores and manifests; raised whenever a field is added, removed or changed.

1 to 2  `relation` of a score and of a manifest's cells
2 to 3  origins of test and calibration sets in place of `distribution`, `in_distribution` and `relation`; other names
        of metrics, options and parts of recipes
3 to 4  clusters of a score's items, and the totals of each metric over them; standard errors are over clusters
Only files of the present version are read: a name of before could not be told from one that is wrong.
"""

VOLATILE = {"environment", "created", "seconds", "schema_version", "origin", "origins"}
"""Fields that may differ between two computations of the same thing; origins are descriptions, no part of a result."""

_VERSION = re.compile(rb'\A\s*\{\s*"schema_version":\s*(\d+)')


class SchemaError(StoreError):
    """A file in another version's form: nothing is wrong with it, and nothing of it is to be deleted."""


class JsonRecord:
    """Base of the records: to JSON and back. All fields are checked for name and type, on construction too."""

    what: ClassVar[str] = "record"

    def to_json(self) -> str:
        """The record as JSON text. Raises StoreError naming the field if a number is NaN or infinite."""
        data = _plain(self)
        for field, number in _numbers(data, ""):
            if not math.isfinite(number):
                raise StoreError(f"a {self.what} cannot hold {field} = {number}: only finite numbers are results")
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "this text") -> Self:
        """Read a record; `source` says in messages where the text came from.

        Raises SchemaError if it was written with another schema, StoreError if it is truncated or no JSON, or has
        unknown, missing or wrongly typed fields.
        """
        if not ("NaN" in text or "Infinity" in text):
            try:
                found: Self = _adapter(cls).validate_json(text)
            except ValidationError:
                pass  # what is wrong is said below, in the order of how likely it is
            else:
                _check_version(getattr(found, "schema_version", SCHEMA_VERSION), source)
                return found
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{source} is damaged or truncated: {error}") from error
        if isinstance(data, dict):
            _check_version(data.get("schema_version", SCHEMA_VERSION), source)
        try:
            checked: Self = _adapter(cls).validate_json(text)
            return checked
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc'])) or cls.what}: {e['msg']}" for e in error.errors()]
            raise StoreError(f"{source} is not a {cls.what} of schema {SCHEMA_VERSION}: {'; '.join(faults)}") from error


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def check_schema(path: Path) -> bool:
    """Raise SchemaError if the record in a file has another schema; whether its schema could be told.

    Only the beginning is read: a damaged file is named when it is loaded.
    """
    try:
        with path.open("rb") as file:
            found = _VERSION.match(file.read(80))
    except OSError:
        return False
    if found is not None:
        _check_version(int(found[1]), str(path))
    return found is not None


def _check_version(version: Any, source: str) -> None:
    if not isinstance(version, int) or version == SCHEMA_VERSION:
        return
    told = f"{source} has result schema {version}; quantbench {__version__} reads schema {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise SchemaError(f"{told}: a newer quantbench wrote it. Upgrade quantbench, or give output_dir=ANOTHER_FOLDER")
    raise SchemaError(
        f"{told}: an older quantbench wrote it. Nothing of it is touched: give output_dir=ANOTHER_FOLDER for new "
        "results, or use the older version for these; see docs/migration.md"
    )


def differences(old: JsonRecord, new: JsonRecord) -> list[str]:
    """The fields in which two records of one thing differ, leaving aside those in VOLATILE."""
    before, after = _stable(_plain(old)), _stable(_plain(new))
    return [key for key in before if before[key] != after[key]]


def _plain(record: JsonRecord) -> dict[str, Any]:
    data: dict[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return data


def _stable(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _stable(value) for key, value in data.items() if key not in VOLATILE}
    return [_stable(value) for value in data] if isinstance(data, list) else data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _numbers(data: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _numbers(value, f"{name}[{index}]")
    elif isinstance(data, float):
        yield name, data
