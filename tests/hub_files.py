"""The files of the data sets that hub_schemas describes, small ones, as the hub has them."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fake_hub import Branch
from hub_schemas import ADDRESSES, Classes, Column, Columns, Repository, Type

ROWS = 40
SCRIPT_COMMIT = "b" * 40


def rows(columns: Columns, split: str, count: int = ROWS) -> list[dict[str, Any]]:
    """The rows of a split, or of a file: then `split` is its name."""
    return [{name: _value(_column(column), split, i) for name, column in columns.items()} for i in range(count)]


def _column(column: Column | str) -> Column:
    return Column("string", (column,)) if isinstance(column, str) else column


def _value(column: Column, split: str, i: int) -> Any:
    return _filled(column.values[i % len(column.values)], split, i)


def _filled(value: Any, split: str, i: int) -> Any:
    match value:
        case str():
            return value.format(split=split, i=i)
        case list():
            return [_filled(one, split, i) for one in value]
        case dict():
            return {key: _filled(one, split, i) for key, one in value.items()}
    return value


def _feature(kind: Type) -> Any:
    from datasets import ClassLabel, List, Value

    match kind:
        case Classes(names=names):
            return ClassLabel(names=list(names))
        case [inner]:
            return List(_feature(inner))
        case dict():
            return {name: _feature(one) for name, one in kind.items()}
    return Value(kind)


def encoded(file: str, columns: Columns, split: str, count: int = ROWS) -> bytes:
    """The content of a file, in the format that its name tells."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    held = rows(columns, split, count)
    stem, _, packed = file.rpartition(".")
    if packed == "gz":
        return gzip.compress(encoded(stem, columns, split, count))
    if packed == "zst":
        import zstandard

        found: bytes = zstandard.compress(encoded(stem, columns, split, count))
        return found
    if packed == "parquet":
        buffer = io.BytesIO()
        features = Features({name: _feature(_column(column).type) for name, column in columns.items()})
        pq.write_table(pa.Table.from_pylist(held, features.arrow_schema), buffer)
        return buffer.getvalue()
    if packed == "csv":
        return pd.DataFrame(held).to_csv(index=False).encode()
    return "".join(json.dumps(row) + "\n" for row in held).encode()


def branches(repository: Repository) -> dict[str, Branch]:
    """The branches of a repository: main, and the hub's own conversion where main is a loading script."""
    named = {file: encoded(file, columns, file) for file, columns in repository.files.items()}
    script = {"README.md": b"# x\n", "script.py": b"raise SystemExit"}
    if repository.is_script and not repository.configs:
        return {"main": Branch(repository.commit, {**script, **named})}
    name = "{config}/{split}/0000.parquet" if repository.is_script else "{config}/{split}-00000-of-00001.parquet"
    card = ["---", "configs:"]
    for config, splits in repository.configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, columns in splits.items():
            file = name.format(config=config, split=split)
            card += [f"  - split: {split}", f"    path: {file}"]
            named[file] = encoded(file, columns, split, repository.few.get(split, ROWS))
    if repository.is_script:
        converted = Branch(repository.commit, named)
        return {"main": Branch(SCRIPT_COMMIT, script), "refs/convert/parquet": converted}
    readme = "\n".join([*card, "---", ""]).encode() if repository.configs else b"# x\n"
    return {"main": Branch(repository.commit, {"README.md": readme, **named})}


def hub(repositories: Mapping[str, Repository]) -> dict[str, dict[str, Branch]]:
    """What FakeHub serves."""
    return {name: branches(repository) for name, repository in repositories.items()}


def at_address(address: str, count: int = ROWS) -> bytes:
    """The file at an address outside of the hub."""
    members = ADDRESSES[address]
    if "" in members:
        return encoded(address, members[""], address, count)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, columns in members.items():
            archive.writestr(name, encoded(name, columns, name))
    return buffer.getvalue()
