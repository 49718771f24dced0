from __future__ import annotations

import dataclasses
import logging
import shutil
import stat
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from quantbench.core import packages, pip_download
from quantbench.core.cache import cache_dir
from quantbench.core.errors import DataError, StoreError
from quantbench.core.packages import PackageFile, fetch, member_files
from wheels import Index, fake_index, without_pip

FILES: dict[str | zipfile.ZipInfo, bytes] = {
    "fakepack/data/one.txt": b"one",
    "fakepack/data/two.txt": b"two",
    "fakepack/code.py": b"raise RuntimeError('never imported')",
}


PINNED = {"name": "a", "version": "1", "sha256": "0" * 64}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return fake_index(tmp_path, monkeypatch)


@pytest.fixture
def index_without_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    return without_pip(index, monkeypatch)


def test_only_named_members_are_unpacked_and_only_one_download_is_needed(
    index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    package = index.add(FILES)
    with caplog.at_level(logging.INFO, logger="quantbench"):
        folder = fetch(package, ["fakepack/data/*.txt"])
    assert "fetching fakepack 1.0 from the package index" in caplog.text
    assert [path.relative_to(folder).as_posix() for path in member_files(folder)] == [
        "fakepack/data/one.txt",
        "fakepack/data/two.txt",
    ]
    assert (folder / "fakepack/data/two.txt").read_bytes() == b"two"
    assert not (folder / "fakepack/code.py").exists()
    shutil.rmtree(index.folder)
    assert fetch(package, ["fakepack/data/*.txt"], verify=True) == folder
    # Nothing but the folder and its lock remains: no wheel, no half-unpacked folder.
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sha256": "0" * 64},
            r"fakepack==1\.0: the index holds a file other than the pinned one \(sha256 \w{64}, not 0{64}\): refused",
        ),
        ({"version": "2.0"}, r"fakepack==2\.0: there is no such release.*the newest are 1\.0"),
        ({"name": "nopack"}, r"nopack==1\.0: the index answers, but knows no such package.*check the name"),
    ],
)
def test_what_the_index_cannot_deliver_is_refused(index: Index, change: dict[str, str], message: str) -> None:
    package = dataclasses.replace(index.add(FILES), **change)
    with pytest.raises(DataError, match=f"(?s){message}"):
        fetch(package, ["*.txt"])
    assert not any(path.is_dir() for path in (index.cache / "packages").iterdir())


def test_an_unreachable_index_is_told_from_a_wrong_name(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    package = index.add(FILES)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match=r"cannot be reached \(network\).*QUANTBENCH_CACHE.*pip's last line"):
        fetch(package, ["*.txt"])


def test_a_pip_that_refuses_the_command_is_not_taken_for_a_missing_network(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "pip.sh"
    pip.write_text(
        "echo \"pip download: error: option --progress-bar: invalid choice: 'raw' (choose from 'on', 'off')\"; exit 2\n"
    )
    monkeypatch.setattr(pip_download, "_PIP", ["sh", str(pip)])
    with pytest.raises(DataError, match=r"needs pip 24\.1 or newer.*invalid choice: 'raw'") as error:
        fetch(index.add(FILES), ["*.txt"])
    assert "network" not in str(error.value)


def test_a_wheel_for_another_platform_is_fetched_when_it_is_pinned(index: Index) -> None:
    package = index.add(FILES, tag="cp35-cp35m-manylinux_2_28_s390x")
    pinned = dataclasses.replace(package, platform="manylinux_2_28_s390x", python_version="3.5")
    assert len(member_files(fetch(pinned, ["*.txt"]))) == 2


def _link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("fakepack/link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize("member", ["../../evil.txt", "/tmp/evil.txt", "a\\..\\evil.txt", "C:/evil.txt", _link()])
def test_members_that_would_leave_their_folder_are_refused(
    index_without_pip: Index, member: str | zipfile.ZipInfo
) -> None:
    package = index_without_pip.add({**FILES, member: b"evil"})
    with pytest.raises(DataError, match="refused to unpack"):
        fetch(package, ["*.txt"])
    assert not list(index_without_pip.cache.rglob("*evil*"))
    assert not list(index_without_pip.cache.rglob("*.txt"))


def test_a_member_where_the_record_is_kept_is_refused(index_without_pip: Index) -> None:
    with pytest.raises(DataError, match=f"refused to unpack '{packages.RECORD}'"):
        fetch(index_without_pip.add({**FILES, packages.RECORD: b"{}"}), ["*"])


def test_a_damaged_archive_is_named(index_without_pip: Index) -> None:
    package = index_without_pip.add(FILES)
    (wheel,) = index_without_pip.folder.glob("fakepack-*")
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"fakepack 1\.0: {wheel.name} is damaged"):
        fetch(package, ["*.txt"])


def test_a_member_that_is_not_there_is_named(index_without_pip: Index) -> None:
    with pytest.raises(DataError, match=r"fakepack 1\.0 holds no file 'fakepack/three\.txt'"):
        fetch(index_without_pip.add(FILES), ["fakepack/data/one.txt", "fakepack/three.txt"])


def test_a_damaged_cache_is_refused_with_what_to_delete(index_without_pip: Index) -> None:
    package = index_without_pip.add(FILES)
    folder = fetch(package, ["*/one.txt"])
    one = folder / "fakepack/data/one.txt"
    one.write_bytes(b"eno")
    assert fetch(package, ["*/one.txt"]) == folder
    with pytest.raises(
        DataError, match=r"sha256 of fakepack/data/one\.txt is not the recorded one\. Delete that folder"
    ):
        fetch(package, ["*/one.txt"], verify=True)
    one.write_bytes(b"on")
    with pytest.raises(DataError, match=r"has 2 bytes instead of 3\. Delete that folder"):
        fetch(package, ["*/one.txt"])
    one.unlink()
    with pytest.raises(DataError, match="is missing"):
        fetch(package, ["*/one.txt"])
    (folder / packages.RECORD).write_text("{")
    with pytest.raises(DataError, match=f"{packages.RECORD} cannot be read"):
        fetch(package, ["*/one.txt"])
    shutil.rmtree(folder)
    assert (fetch(package, ["*/one.txt"]) / "fakepack/data/one.txt").read_bytes() == b"one"


def test_two_at_once_download_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    package = index.add(FILES)
    calls: list[str] = []
    real = pip_download.download_wheel

    def slow(*arguments: Any) -> Path:
        calls.append(arguments[0])
        time.sleep(0.2)
        return real(*arguments)

    monkeypatch.setattr(packages, "download_wheel", slow)
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(package, ["*.txt"]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["fakepack"]
    assert len(folders) == 3
    assert len(set(folders)) == 1


def test_a_cache_that_cannot_be_written_says_so(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    package = index.add(FILES)
    index.cache.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot write"):
        fetch(package, ["*.txt"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/home/u/.cache/quantbench"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/quantbench"),
        ({"QUANTBENCH_CACHE": "~/mine"}, "/home/u/mine"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str) -> None:
    for name, value in {"HOME": "/home/u", "XDG_CACHE_HOME": "", "QUANTBENCH_CACHE": "", **environment}.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


@pytest.mark.parametrize(
    "change", [{"sha256": "abc"}, {"name": "a b; rm"}, {"version": "1 --pre"}, {"platform": "a b"}, {"hash": "x"}]
)
def test_a_pin_must_be_well_formed(change: dict[str, str]) -> None:
    PackageFile(**PINNED)
    with pytest.raises(ValidationError):
        PackageFile(**{**PINNED, **change})
