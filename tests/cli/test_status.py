"""`quantbench status` of a thousand cells, whose state files are made up."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from made_up import MadeUp, tell
from quantbench.cli import sweeps
from quantbench.cli.standing import shares
from quantbench.launch.overview import key_of
from quantbench.launch.records import JobRecord, now
from quantbench.launch.state import SweepState
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store
from stored_sweep import cell

N = 1000


class Terminal(io.StringIO):
    """A terminal that remembers everything."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sweep of 1,000 cells in one submission: 300 done, 70 failed, 64 running, the others wait."""
    long = "a name that somebody gave to it" * 4
    entries = [cell("wiki", f"gptq{i}-{long}", f"{i:012x}", status="pending", tasks={}) for i in range(N)]
    Store(tmp_path).save_manifest(Manifest(name="big", overrides=[], cells=entries, caption={}))
    sweep, keys = SweepState(tmp_path, "big"), [key_of(entry) for entry in entries]
    record = JobRecord(token="qb-big-1", cluster="slurm", created=now(), host="login", cells=[[key] for key in keys])
    sweep.save_job(record)
    for i, key in enumerate(keys):
        job = f"qb-big-1/{i}"
        if i < 300:
            tell(sweep, key, "done", job, seconds=60.0)
        elif i < 370:
            error = "RuntimeError: boom" if i % 7 else f"ModelError: block {i} is not finite"
            tell(sweep, key, "failed", job, error=f"{error}\nand more of it")
        elif i < 434:
            tell(sweep, key, "running", job, started=(datetime.now(UTC) - timedelta(hours=2.05)).isoformat())
    return tmp_path


def shown(root: Path, monkeypatch: pytest.MonkeyPatch, looks: int, *arguments: str, output: io.StringIO) -> list[str]:
    """What is printed in so many looks, after which everything is over."""
    left = [looks]

    def queue() -> dict[tuple[str, int], str] | None:
        left[0] -= 1
        return {("qb-big-1", i): f"77_{i}" for i in range(300, N)} if left[0] >= 0 else {}

    cluster = MadeUp(queue, grace_seconds=0)
    monkeypatch.setattr(sweeps, "_cluster", lambda sweep: cluster)
    monkeypatch.setattr("sys.stdout", output)
    status = sweeps.status(["big", f"--output-dir={root}", *arguments])
    assert status == 1
    return output.getvalue().split(sweeps.CLEAR)


def test_a_thousand_cells_fit_the_screen_they_are_watched_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("COLUMNS", "100")
    before, *screens = shown(root, monkeypatch, 2, "--watch", "0.001", output=Terminal())
    assert before == ""
    assert len(screens) == 3
    for screen in screens:
        lines = screen.splitlines()
        assert len(lines) < 40
        assert max(map(len, lines)) <= 100
    first = screens[0]
    assert first == screens[1], "it changes nothing where nothing has changed"
    assert "big: 70 failed, 64 running, 566 queued, 300 done; about " in first.splitlines()[-1]
    rows = Counter(re.findall(r"^[0-9a-f]{8}  (\w+)", first, re.MULTILINE))
    hidden = {state: int(n) for n, state in re.findall(r"\.\.\. and (\d+) more (\w+)", first)}
    assert rows.keys() == {"failed", "running", "queued"}
    assert min(rows.values()) >= 9
    assert rows + Counter(hidden) == {"failed": 70, "running": 64, "queued": 566}
    assert re.search(r"more failed \(\d+ RuntimeError, \d+ ModelError\)", first)
    assert "630 lost" in screens[-1]


def test_into_a_file_and_for_programs_it_goes_without_control_characters(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = shown(root, monkeypatch, 1, output=io.StringIO())
    assert len(text.splitlines()) < 80
    (everything,) = shown(root, monkeypatch, 1, "--all", output=io.StringIO())
    assert len(re.findall(r"^[0-9a-f]{8}  ", everything, re.MULTILINE)) == N
    (told,) = shown(root, monkeypatch, 1, "--json", output=Terminal())
    assert json.loads(told)["counts"] == {"failed": 70, "running": 64, "queued": 566, "done": 300}


def test_jobs_that_the_queue_does_not_show_yet_are_cancelled_with_the_others(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeps, "_cluster", lambda sweep: MadeUp(dict))
    assert sweeps.cancel(["big", f"--output-dir={root}"]) == 0
    assert "1 submission with 630 open cells cancelled" in capsys.readouterr().out
    assert [record.cancelled for record in SweepState(root, "big").jobs()] == [True]


def test_states_share_the_screen_and_what_one_does_not_need_others_get() -> None:
    assert shares({"failed": 2, "running": 64, "queued": 900}, 32) == {"failed": 2, "running": 15, "queued": 15}
    assert shares({"failed": 2, "queued": 3}, 32) == {"failed": 2, "queued": 3}
    assert shares({}, 5) == {}
