"""Small wheels in a folder that pip takes for the package index."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from quantbench.core import packages
from quantbench.core.packages import PackageFile


class Index:
    """Where fake wheels lie, and where the cache under test is."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache

    def add(
        self,
        files: Mapping[str | zipfile.ZipInfo, bytes],
        name: str = "fakepack",
        version: str = "1.0",
        tag: str = "py3-none-any",
    ) -> PackageFile:
        """Build a wheel and return what pins it."""
        info = f"{name}-{version}.dist-info"
        path = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            archive.writestr(f"{info}/RECORD", "")
        return PackageFile(name=name, version=version, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def fake_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An empty index; pip asks nothing else, and the cache folder is a new one."""
    index = Index(tmp_path / "index", tmp_path / "cache")
    index.folder.mkdir()
    index.add({}, name="pip")  # every mirror has it
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    monkeypatch.setenv("QUANTBENCH_CACHE", str(index.cache))
    return index


def without_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Replace the download by a copy, for tests of what comes after it: half a second less each."""

    def copy(name: str, version: str, *_: object) -> Path:
        wheel = next(index.folder.glob(f"{name}-{version}-*"))
        return Path(shutil.copy(wheel, next((index.cache / "packages").glob(".*/download"))))

    monkeypatch.setattr(packages, "download_wheel", copy)
    return index
