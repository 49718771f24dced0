"""What a shared file system does to reading, renaming and locking; simulated, one fault at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from quantbench.core import locks, shared
from quantbench.core.errors import StoreError
from quantbench.core.files import write_text


def refusing(number: int, times: int) -> Callable[[int, int], None]:
    """A `flock` that fails so many times."""
    left = [times]
    real = fcntl.flock

    def flock(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        real(file, operation)

    return flock


def test_locks_that_are_not_to_be_had_for_a_while_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "ASK_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK, 5))
    lock, other = locks.file_lock(tmp_path / "one.lock"), locks.file_lock(tmp_path / "one.lock")
    locks.acquire(lock, wait=False)
    with pytest.raises(Timeout):
        locks.acquire(other, wait=False)
    lock.release()
    locks.acquire(other, wait=False)
    other.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_and_not_worked_around(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "ASK_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(fcntl, "flock", refusing(number, 10**9))
    with pytest.raises(StoreError, match=r"one\.lock: the file system refuses locks .*NFS: without nolock"):
        locks.acquire(locks.file_lock(tmp_path / "one.lock"), wait=True)


NFS = "36 35 0:31 / {point} rw,relatime shared:1 - {kind} server:/export rw,vers=3,{options}\n"


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("nfs", "nolock,local_lock=none", "nolock"),
        ("nfs", "local_lock=all", "local_lock=all"),
        ("nfs4", "local_lock=flock", "local_lock=flock"),
        ("lustre", "localflock", "localflock"),
        ("nfs", "local_lock=none", None),
        ("nfs4", "local_lock=posix", None),
        ("lustre", "flock", None),
    ],
)
def test_mounts_whose_locks_other_machines_do_not_see_are_refused(
    kind: str, options: str, word: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "our results"
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        + NFS.format(point=str(point).replace(" ", r"\040"), kind=kind, options=options)
    )
    monkeypatch.setattr(locks, "MOUNTS", table)
    locks.check_seen_by_others(tmp_path)
    if word is None:
        locks.check_seen_by_others(point / "outputs")
    else:
        with pytest.raises(StoreError, match=f"{kind} mounted with {word}: other machines do not see"):
            locks.check_seen_by_others(point / "outputs")


def test_a_rename_whose_answer_was_lost_counts_and_one_that_was_not_done_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "status.json", Path.replace
    path.write_text("old")

    def answer_lost(self: Path, target: Path) -> Path:
        real(self, target)
        raise FileNotFoundError(errno.ENOENT, "asked twice")

    monkeypatch.setattr(Path, "replace", answer_lost)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["status.json"]

    def not_done(self: Path, target: Path) -> Path:
        raise FileNotFoundError(errno.ENOENT, "no such folder")

    monkeypatch.setattr(Path, "replace", not_done)
    with pytest.raises(StoreError, match="cannot write"):
        write_text(path, "newer")
    assert path.read_text() == "new"


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, stale = tmp_path / "status.json", Path.read_text, [3]
    path.write_text("new")

    def read_text(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if stale[0]:
            stale[0] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(self, encoding, errors)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert shared.read_text(path) == "new"
    stale[0] = 100
    with pytest.raises(OSError, match=r"[Ss]tale"):
        shared.read_text(path)


def test_a_file_that_comes_late_is_waited_for_and_one_that_does_not_come_is_told(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "record.json"
    assert not shared.is_there(path)
    assert not shared.appears(path, 0.05)

    def write() -> None:
        time.sleep(0.1)
        path.parent.mkdir(parents=True)
        path.touch()

    writer = threading.Thread(target=write)
    writer.start()
    assert shared.appears(path, 5)
    writer.join()
    shared.relist(tmp_path / "nothing")
