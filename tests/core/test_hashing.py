from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from quantbench.core.errors import ConfigError
from quantbench.core.hashing import digest, file_sha256, hash_path


def test_a_file_is_hashed_anew_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    for time, content in enumerate((b"one", b"four", b"five")):
        file.write_bytes(content)
        os.utime(file, (time, time))  # two writes may fall into one tick of the file system's clock
        assert file_sha256(file) == hash_path(file) == hashlib.sha256(content).hexdigest()


def test_a_folder_counts_by_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return hash_path(tmp_path / name)

    first = folder("first", {"b.txt": "2", "in/a.txt": "1"})
    assert folder("same", {"in/a.txt": "1", "b.txt": "2"}) == first
    assert folder("moved", {"a.txt": "1", "b.txt": "2"}) != first
    assert folder("changed", {"in/a.txt": "1", "b.txt": "3"}) != first


def test_nothing_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        hash_path(tmp_path / "missing")


def test_a_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) == digest({"a": 1, "b": [2]}, 64)[:16]
    assert digest({"a": 1}) != digest({"a": "1"})
