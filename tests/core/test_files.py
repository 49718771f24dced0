"""Atomic writes under a full disk, a file-size limit, a missing permission and a kill; all of them real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from quantbench.core import files
from quantbench.core.errors import StoreError

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(python(code, *arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_the_new_version_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2, "ä": "漢"})
    assert files.read_json(path, "") == {"a": 2, "ä": "漢"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.json"]


def test_an_interrupted_write_leaves_the_old_version_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    files.write_text(path, "old")

    def interrupted() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_are_not_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "data.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_file_size_limit_is_explained_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np, pandas as pd
        from quantbench.core.errors import StoreError
        from quantbench.core import files
        folder = Path(sys.argv[1])
        files.write_text(folder / "kept.txt", "kept")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        writes = {
            "a.txt": lambda path: files.write_text(path, "x" * 100_000),
            "b.parquet": lambda path: files.write_parquet(path, pd.DataFrame({"x": np.random.rand(100_000)})),
        }
        for name, write in writes.items():
            try:
                write(folder / name)
            except StoreError as error:
                print(error)
        print(sorted(path.name for path in folder.iterdir()))
    """
    result = run(code, str(tmp_path))
    assert result.returncode == 0, result.stderr
    *messages, left = result.stdout.splitlines()
    assert left == "['kept.txt']"
    assert len(messages) == 2
    for message, name in zip(messages, ["a.txt", "b.parquet"], strict=True):
        assert f"cannot write {tmp_path / name}" in message
        assert "File too large" in message
        assert "free on that file system" in message
        assert "is kept" in message
        assert "run the same command again to continue" in message


def test_a_full_disk_is_explained_and_a_finished_part_survives(tmp_path: Path) -> None:
    mount = "mount -t tmpfs -o size=256k none " + str(tmp_path)
    inside = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        possible = subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("no right to mount a small file system here")
    code = """
        import sys
        from pathlib import Path
        import torch
        from quantbench.core.errors import StoreError
        from quantbench.core import tensors
        from quantbench.store.store import Store
        store = Store(Path(sys.argv[1]))
        store.append_cost("r", {"environment": "e", "seconds": 1.0})
        for write in (
            lambda: tensors.save(store.weights_path("r"), {"x": torch.zeros(1_000_000)}),
            lambda: store.append_cost("r", {"environment": "e", "note": "x" * 1_000_000}),
        ):
            try:
                write()
            except StoreError as error:
                print(error)
        print(sorted(p.name for p in store.run_dir("r").iterdir()), store.load_costs("r"))
    """
    result = subprocess.run(
        [*inside, *python(code, str(tmp_path))], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    *messages, left = result.stdout.splitlines()
    assert left == "['.lock', 'costs.jsonl'] [{'environment': 'e', 'seconds': 1.0}]"
    assert len(messages) == 2
    for message in messages:
        assert "No space left on device" in message
        assert "free some space" in message


def test_a_read_only_folder_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*file.*Everything finished before is kept"):
        files.make_folder(path / "folder")
    if os.geteuid() == 0:
        path = Path("/proc/quantbench")
    else:
        tmp_path.chmod(0o500)
        path = tmp_path / "new"
    with pytest.raises(StoreError, match="cannot write"):
        files.write_text(path, "x")


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from quantbench.core import files
        path = Path(sys.argv[1])
        count = 0
        while True:
            files.write_json(path, {"count": count, "filler": [count] * 20_000})
            count += 1
            print(count, flush=True)
    """
    path = tmp_path / "data.json"
    for pause in (0.0, 0.003, 0.011):
        process = subprocess.Popen(python(code, str(path)), env=ENVIRONMENT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = json.loads(path.read_text())
        assert data["filler"] == [data["count"]] * 20_000


def test_damaged_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with pytest.raises(StoreError, match=r"cannot read .*data\.json.*Do this\."):
        files.read_json(path, "Do this.")
    path.write_text('{"a": 1')
    with pytest.raises(StoreError, match=r"data\.json is damaged or truncated: .* Do this\."):
        files.read_json(path, "Do this.")
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StoreError, match=r"cannot read .*data\.json.*Do this\."):
        files.read_parquet(path, "Do this.")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="cannot read"):
        files.read_text(path, "")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 Bytes"), (2048, "2.0 KiB"), (5_400_000, "5.1 MiB"), (2**41, "2.0 TiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert files.readable_bytes(count) == text
