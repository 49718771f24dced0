"""What a piece of work takes: seconds by the clock and of the processor, and the most memory it held."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures from its making on. On Linux the peak of memory is that of this work, elsewhere that of the process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda: ModuleType | None = None
        if device.type == "cuda":
            from torch import cuda

            cuda.reset_peak_memory_stats(device)
            self._cuda = cuda
        if _CLEAR.exists():
            try:
                _CLEAR.write_text("5", encoding="utf-8")  # sets VmHWM back to what is held now
            except OSError:
                self._alone = False  # a container may forbid it
            else:
                self._alone = True
        else:
            self._alone = False
        self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, Any]:
        """seconds, cpu_seconds, peak_memory_bytes, peak_memory_alone (of this work only), cuda: peak_device_bytes."""
        self._wait()
        found: dict[str, Any] = {
            "seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
            "peak_memory_bytes": _peak(),
            "peak_memory_alone": self._alone,
        }
        if self._cuda is not None:
            found["peak_device_bytes"] = self._cuda.max_memory_allocated(self._device)
        return found

    def _wait(self) -> None:
        """Kernels run on after the call that started them."""
        if self._cuda is not None:
            self._cuda.synchronize(self._device)


def _peak() -> int:
    """VmHWM where there is one, else the largest resident size since the process began."""
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
