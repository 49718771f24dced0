"""Documents of a source that is slow to read, cut into both sides and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from quantbench.core.cache import cache_dir, only_one
from quantbench.core.errors import DataError
from quantbench.core.files import write_text
from quantbench.datasets.rows import Rows
from quantbench.datasets.split import CUT_VERSION


@dataclass(frozen=True)
class Extracted:
    """What a file of the cache holds: the distinct documents of each side, and where they came from."""

    path: Path
    sides: dict[str, list[str]] = field(repr=False)
    revision: str
    notes: tuple[str, ...]


def extracted(name: str, key: str, make: Callable[[], tuple[Rows, dict[str, list[str]]]]) -> Extracted:
    """The documents under a key, made at the first call. Raises DataError if the cached file is damaged."""
    digest = hashlib.sha256(json.dumps([key, CUT_VERSION]).encode()).hexdigest()
    path = cache_dir() / "texts" / f"{name}-{digest[:16]}.jsonl"
    if not path.is_file():
        with only_one(path):
            if not path.is_file():
                rows, sides = make()
                _write(path, rows, sides)
    return _read(path)


def _write(path: Path, rows: Rows, sides: dict[str, list[str]]) -> None:
    lines = [json.dumps({"split": side, "text": text}) + "\n" for side, texts in sides.items() for text in texts]
    body = "".join(lines)
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    header = {"documents": len(lines), "sha256": sha256, "revision": rows.revision, "notes": rows.notes}
    write_text(path, json.dumps(header) + "\n" + body)


def _read(path: Path) -> Extracted:
    sides: dict[str, list[str]] = {"train": [], "test": []}
    try:
        first, _, body = path.read_text(encoding="utf-8").partition("\n")
        header = json.loads(first)
        if hashlib.sha256(body.encode()).hexdigest() != header["sha256"]:
            raise ValueError("its sha256 is not the recorded one")
        for line in body.splitlines():
            row = json.loads(line)
            sides[row["split"]].append(row["text"])
        return Extracted(path, sides, str(header["revision"]), tuple(map(str, header["notes"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"damaged cache: {path}: {error}. Delete that file and run again: it is made anew") from error
