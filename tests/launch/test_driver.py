"""Who submits what, where the queue answers late, clocks differ and commands die; with a cluster that is made up."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from made_up import MadeUp, tell, work
from quantbench.core.errors import QuantbenchError, StoreError
from quantbench.launch import submit as submitting
from quantbench.launch.driver import follow, launch
from quantbench.launch.overview import Watch
from quantbench.launch.state import SweepState


@pytest.fixture
def sweep(tmp_path: Path) -> SweepState:
    return SweepState(tmp_path, "ours")


def start(sweep: SweepState, cluster: MadeUp, *keys: str, done: frozenset[str] = frozenset()) -> Watch:
    return launch(sweep, cluster, work(*keys), lambda: set(done), threads=1, retry_failed=True)


def test_jobs_that_the_queue_shows_late_are_not_submitted_again(sweep: SweepState) -> None:
    asked = itertools.count()

    def queue() -> dict[tuple[str, int], str]:
        token = cluster.submitted[0]
        return {(token, 0): "1_0", (token, 1): "1_1"} if next(asked) >= 2 else {}

    cluster = MadeUp(queue, grace_seconds=60)
    start(sweep, cluster, "a", "b")
    watch = start(sweep, cluster, "a", "b")
    assert len(cluster.submitted) == 1
    assert {view.state for view in watch.look(["a", "b"], sweep.jobs()).values()} == {"queued"}


def test_jobs_that_are_gone_for_good_are_submitted_again_by_the_same_command(sweep: SweepState) -> None:
    cluster = MadeUp(dict, grace_seconds=0.05)
    start(sweep, cluster, "a", "b")
    tell(sweep, "a", "done", f"{cluster.submitted[0]}/0")
    start(sweep, cluster, "a", "b", done=frozenset("a"))
    first, second = sweep.jobs()
    assert [first.cells, second.cells] == [[["a"], ["b"]], [["b"]]]


def test_a_queue_that_cannot_be_asked_leads_to_no_conclusion(sweep: SweepState) -> None:
    cluster = MadeUp(lambda: None, grace_seconds=0)
    start(sweep, cluster, "a")
    start(sweep, cluster, "a")
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize("late", [True, False])
def test_a_command_that_died_while_it_submitted_is_found_out_about_even_late(sweep: SweepState, late: bool) -> None:
    started = start(sweep, MadeUp(dict), "a", "b")
    (record,) = started.sweep.jobs()
    sweep.save_job(dataclasses.replace(record, ids=[]))
    asked = itertools.count()

    def queue() -> dict[tuple[str, int], str]:
        shown = late and next(asked) >= 2
        return {(record.token, 0): "7_0", (record.token, 1): "7_1"} if shown else {}

    cluster = MadeUp(queue, grace_seconds=60 if late else 0.05)
    start(sweep, cluster, "a", "b")
    first = sweep.load_job(record.token)
    assert first is not None
    assert (first.ids, first.cancelled) == ((["7_0", "7_1"], False) if late else ([], True))
    assert len(cluster.submitted) == (0 if late else 1)


def test_a_submission_whose_fate_cannot_be_asked_stops_the_command(sweep: SweepState) -> None:
    start(sweep, MadeUp(dict), "a")
    (record,) = sweep.jobs()
    sweep.save_job(dataclasses.replace(record, ids=[]))
    with pytest.raises(QuantbenchError, match="nothing was submitted"):
        start(sweep, MadeUp(lambda: None), "a")


def test_the_last_submission_is_the_last_one_whatever_the_clocks_say(
    sweep: SweepState, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(sweep, MadeUp(dict, grace_seconds=0), "a")
    behind = (datetime.now(UTC) - timedelta(minutes=5)).isoformat(timespec="seconds")
    monkeypatch.setattr(submitting, "now", lambda: behind)
    cluster = MadeUp(lambda: {(token, 0): "2" for token in cluster.submitted}, grace_seconds=0)
    start(sweep, cluster, "a")
    assert [record.token for record in sweep.jobs()][-1] == cluster.submitted[0]
    tell(sweep, "a", "running", f"{cluster.submitted[0]}/0")
    assert Watch(sweep, cluster).look(["a"], sweep.jobs())["a"].state == "running"


def test_the_age_of_a_cell_on_a_node_whose_clock_is_ahead_is_not_negative(sweep: SweepState) -> None:
    ahead = (datetime.now(UTC) + timedelta(minutes=5)).isoformat(timespec="seconds")
    tell(sweep, "a", "done", "command", started=ahead)
    assert Watch(sweep, None).look(["a"], [])["a"].age == 0


def test_what_a_job_told_while_the_queue_was_asked_is_not_overlooked(sweep: SweepState) -> None:
    def queue() -> dict[tuple[str, int], str]:
        tell(sweep, "a", "done", f"{cluster.submitted[0]}/0", seconds=1.0)
        return {}

    cluster = MadeUp(queue, grace_seconds=0)
    start(sweep, cluster, "a")
    assert Watch(sweep, cluster).look(["a"], sweep.jobs())["a"].state == "done"


def test_a_cell_whose_results_were_removed_is_run_as_if_for_the_first_time(sweep: SweepState) -> None:
    cluster = MadeUp(dict)
    start(sweep, cluster, "a")
    tell(sweep, "a", "done", f"{cluster.submitted[0]}/0")
    start(sweep, cluster, "a")
    assert len(cluster.submitted) == 2
    assert sweep.load_cell("a") is None


def test_a_folder_that_jobs_cannot_share_is_refused_before_anything_is_submitted(sweep: SweepState) -> None:
    class Apart(MadeUp):
        def check_folder(self, root: Path) -> None:
            raise StoreError(f"{root}: the file system refuses locks")

    cluster = Apart(dict)
    with pytest.raises(StoreError, match="refuses locks"):
        start(sweep, cluster, "a")
    assert not cluster.submitted
    assert not sweep.jobs()


def test_a_failure_is_told_with_the_machine_it_happened_on(sweep: SweepState, caplog: pytest.LogCaptureFixture) -> None:
    cluster = MadeUp(dict)
    watch = start(sweep, cluster, "a")
    tell(sweep, "a", "failed", f"{cluster.submitted[0]}/0", host="n3", error="ModelError: no such folder")
    with caplog.at_level("ERROR"):
        follow(watch, work("a"), set(), 0.01)
    assert "failed on n3: ModelError: no such folder" in caplog.text
