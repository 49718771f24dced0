"""Three nodes and two login nodes that share a file system as slow to tell news as NFS: no cell twice, none lost.

The file system is a simulation (nfs_like.c), and so are the queue that answers late and the clocks that are off.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest

from machines import LAB, NodesWorkdir, machines
from slow_workdir import LAYERS, wait_for

pytestmark = pytest.mark.nodes


def once(*names: str) -> dict[str, int]:
    """What is rounded where every cell is run exactly once."""
    return dict.fromkeys(names, LAYERS)


def states(nodes: NodesWorkdir) -> set[str]:
    return {status["state"] for status in nodes.statuses()}


def test_two_login_nodes_that_submit_the_same_sweep_at_once_share_it(nodes: NodesWorkdir) -> None:
    names = ["a_slow", "b", "c", "d", "e", "f"]
    grid = nodes.cells_of(",".join(names))
    commands = [nodes.on(login, *grid) for login in ("login1", "login2")]
    said = [command.ok() for command in commands]
    assert sum("6 submitted" in text for text in said) == 1
    assert sum("0 submitted" in text for text in said) == 1
    assert nodes.times() == once(*names)
    assert {status["host"] for status in nodes.statuses()} <= {"n1", "n2", "n3"}
    assert states(nodes) == {"done"}
    tables = {path.read_bytes() for path in nodes.outputs.glob("sweeps/*/results.csv")}
    assert len(tables) == 1
    assert "6 finished, 0 on their way, 0 submitted" in nodes.on("login2", *grid).ok()


def test_a_node_that_goes_down_costs_no_cell_though_its_locks_stay(nodes: NodesWorkdir) -> None:
    grid = nodes.cells_of("a_slow,b,c,d", "quantizer.rounding.seconds=60")
    command = nodes.on("login1", *grid)
    wait_for(lambda: nodes.times()["a_slow"] > 0)
    node = nodes.node_of("a_slow")
    machines("cut_off", node)
    machines("kill", node)
    time.sleep(1)
    before = nodes.times()["a_slow"]
    assert 0 < before < LAYERS
    wait_for(lambda: nodes.node_of("a_slow") not in {"", node})
    logs = nodes.outputs / "sweeps"
    wait_for(lambda: any("waiting for them" in log.read_text() for log in logs.glob("*/state/jobs/*/log/*.err")))
    time.sleep(3)
    assert nodes.times()["a_slow"] == before, "it was run though another process had it"
    nodes.mend()
    machines("release", node)
    command.ok()
    assert nodes.times() == once("b", "c", "d") | {"a_slow": before + LAYERS}
    assert states(nodes) == {"done"}
    assert "4 finished, 0 on their way, 0 submitted" in nodes.on("login2", *grid).ok()


def test_nodes_and_login_nodes_whose_clocks_are_off_run_each_cell_once(nodes: NodesWorkdir) -> None:
    python = nodes.folder / "python"
    python.write_text(
        "#!/bin/bash\ncase $(hostname) in n1 | login1) off=300 ;; n2 | login2) off=-300 ;; *) off=0 ;; esac\n"
        f'export LD_PRELOAD={LAB}/clock_off.so CLOCK_OFF=$off\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    grid = nodes.cells_of("a_raises,b,c,d,e,f", f"cluster.python={python}", "cluster.setup=['unset LD_PRELOAD']")
    first = nodes.on("login1", *grid, python=str(python))
    assert first.wait() == 1, first.errors
    assert "1 of 6 cells failed" in first.errors
    nodes.mend()
    # This submission is the second one, and by its clock the earlier one.
    assert "5 finished, 0 on their way, 1 submitted" in nodes.on("login2", *grid, python=str(python)).ok()
    assert nodes.times() == once("b", "c", "d", "e", "f") | {"a_raises": LAYERS + 1}
    assert states(nodes) == {"done"}


def test_a_queue_that_tells_the_state_of_a_while_ago_makes_no_cell_run_twice(nodes: NodesWorkdir) -> None:
    tools, listings = nodes.folder / "bin", nodes.folder / "listings"
    tools.mkdir()
    listings.mkdir()
    # It prints what the queue was like 5 seconds ago, and takes a second for it.
    (tools / "squeue").write_text(
        f'#!/bin/bash\ncd {listings}\nnow=$(date +%s%N)\n{shutil.which("squeue")} "$@" >.$now && mv .$now $now\n'
        f"sleep 1\nfor one in $(ls | sort -rn); do\n"
        f"  if [ $one -le $((now - 5000000000)) ]; then cat $one; break; fi\ndone\n"
    )
    (tools / "squeue").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    grid = nodes.cells_of("a_slow,b,c", "quantizer.rounding.seconds=15", grace=20)
    first = nodes.on("login1", *grid, PATH=path)
    wait_for(lambda: "submitted in" in first.errors)
    second = nodes.on("login2", *grid, PATH=path)
    for command in (first, second):
        command.ok()
    assert "0 submitted" in second.errors
    assert nodes.times() == once("a_slow", "b", "c")


def test_a_node_without_the_model_fails_its_cells_by_name_and_another_one_does_them(nodes: NodesWorkdir) -> None:
    model = LAB / "cache" / nodes.name
    (nodes.folder / "model").rename(nodes.folder / "moved")
    shutil.copytree(nodes.folder / "moved", model)
    (nodes.folder / "model").symlink_to(model)
    grid = nodes.cells_of("a,b")
    command = nodes.on("login1", *grid, "+cluster.extra.nodelist=n3")
    assert command.wait() == 1, command.errors
    assert command.errors.count("failed on n3: ") == 2
    assert "no such folder" in command.errors
    assert not nodes.times()
    said = nodes.on("login1", *grid, "+cluster.extra.exclude=n3").ok()
    assert "0 finished, 0 on their way, 2 submitted" in said
    assert nodes.times() == once("a", "b")
