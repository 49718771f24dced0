"""Where a number was computed: versions, hardware, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from quantbench.core.errors import ConfigError
from quantbench.core.hashing import digest
from quantbench.core.version import __version__

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "numba", "safetensors", "lm_eval")


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions and hardware as plain values; `id` is a digest of them."""
    import torch

    values = {**machine(), "device": str(device), "threads": threads}
    if device.type == "cuda":
        values["gpu"] = torch.cuda.get_device_name(device)
        values["cuda"] = torch.version.cuda
    return {"id": digest(values, 12), **values}


@cache
def machine() -> dict[str, Any]:
    """Versions and hardware that are the same whatever is computed where."""
    return {
        "quantbench": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False) or 0,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def pick_device(name: str) -> torch.device:
    """The device `device=` names; `auto` is cuda if there is one, else cpu.

    Raises ConfigError if it is not there, or if `auto` would compute on the CPU though GPUs were given to the process.
    """
    import torch

    if name == "auto":
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if torch.cuda.is_available():
            return torch.device("cuda")
        if given.strip() not in ("", "-1", "NoDevFiles"):
            raise ConfigError(
                f"device=auto: CUDA_VISIBLE_DEVICES={given} gives this process GPUs, but torch {torch.__version__} "
                "sees none. Install a torch that matches the driver, or say device=cpu"
            )
        return torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device={name}: torch sees {torch.cuda.device_count()} CUDA devices; use device=cpu or auto")
    return device
