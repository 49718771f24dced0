"""Tensors that are kept in files instead of memory, and how much memory there is."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mapped import in_file
from quantbench.core import memory
from quantbench.core.errors import StoreError
from quantbench.core.memory import UNLIMITED, Memory, machine_memory

GIB = 2**30


def test_what_memory_holds_is_kept_there(tmp_path: Path) -> None:
    tensor = torch.ones(3)
    assert Memory(memory.PROCESS + 12, tmp_path / "spill").keeper(12)(tensor) is tensor
    assert UNLIMITED.keeper(10**18)(tensor) is tensor
    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.randn(7, 5).t(),
        torch.tensor([True, False, True]),
        torch.arange(11, dtype=torch.int16),
        torch.randn(3, 4).bfloat16(),
        torch.randn(5).to(torch.float8_e4m3fn),
        torch.zeros(0, 3),
    ],
    ids=lambda tensor: f"{tensor.dtype} {list(tensor.shape)}",
)
def test_a_kept_tensor_is_the_same(tensor: torch.Tensor, tmp_path: Path) -> None:
    kept = Memory(0, tmp_path).keeper(1)(tensor)
    assert (kept.dtype, kept.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(kept.float(), tensor.float())
    assert in_file(kept, tmp_path) == bool(tensor.numel())


def test_many_tensors_keep_their_values_in_pieces_of_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._TensorFile, "PIECE", 16384)
    monkeypatch.setattr(memory._TensorFile, "STEP", 4096)
    keep = Memory(0, tmp_path / "new" / "folder").keeper(1)
    given = [torch.randn(size) for size in (100, 1000, 7, 5000, 1, 900, 900, 2000, 1000, 6000)]
    kept = [keep(tensor.clone()) for tensor in given]
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    assert all(torch.equal(*pair) for pair in zip(given, kept, strict=True))
    kept[0].fill_(2)
    assert kept[0].sum() == 200
    assert all(torch.equal(*pair) for pair in zip(given[1:], kept[1:], strict=True))


def test_a_file_takes_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory._TensorFile, "STEP", 4096)
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not show the descriptors of a process")
    before, keep = len(list(descriptors.iterdir())), Memory(0, tmp_path).keeper(1)
    kept = [keep(torch.full((3000,), float(number))) for number in range(200)]
    assert len(list(descriptors.iterdir())) <= before + 2
    assert [float(one[0]) for one in kept] == list(range(200))
    del kept, keep
    assert len(list(descriptors.iterdir())) == before


@pytest.fixture
def small_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_full_folder_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="File too large") as raised:
        Memory(0, tmp_path).keeper(1)(torch.ones(10))
    assert str(tmp_path) in str(raised.value)
    assert "spill_folder=FOLDER chooses another place" in str(raised.value)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/job/step\n", {"job/memory.max": "1073741824\n", "job/step/memory.max": "max\n"}, GIB),
        ("0::/job/step\n", {"job/step/memory.max": "2147483648\n"}, 2 * GIB),
        (
            "9:cpu:/a\n4:memory:/slurm/job\n0::/\n",
            {
                "memory/slurm/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/slurm/job/memory.limit_in_bytes": str(GIB),
            },
            GIB,
        ),
        ("0::/job\n", {"job/memory.max": "max"}, None),
        ("0::/not/visible\n", {}, None),
        (None, {}, None),
    ],
)
def test_a_limit_of_the_own_group_or_one_above_counts(
    groups: str | None, files: dict[str, str], limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    if groups is not None:
        (tmp_path / "own").write_text(groups, encoding="utf-8")
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    installed = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES")
    assert machine_memory() == (limit or installed)


@pytest.mark.parametrize(
    ("job", "limit"),
    [
        ({"SLURM_MEM_PER_NODE": "2048"}, 2 * GIB),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_ON_NODE": "4"}, 2 * GIB),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "4"}, None),
        ({}, None),
    ],
)
def test_a_job_has_the_memory_that_it_asked_for(
    job: dict[str, str], limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "none")
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert machine_memory() == (limit or resource.getpagesize() * os.sysconf("SC_PHYS_PAGES"))
