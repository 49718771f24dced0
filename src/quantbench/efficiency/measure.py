"""Measures an exported model in a process of its own, and keeps what it found with the run that was exported."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantbench.core.environment import machine
from quantbench.core.errors import ConfigError, StoreError
from quantbench.core.files import write_json
from quantbench.core.hashing import digest
from quantbench.efficiency import engines
from quantbench.efficiency.workload import Workload
from quantbench.export.asking import answer_of
from quantbench.export.reader import at_once
from quantbench.models.folder import max_length

NEEDS = {"transformers": ("transformers", "transformers"), "llama.cpp": ("xllamacpp", "xllamacpp")}
"""Engines: the module that is imported, and the package that has it."""


@dataclass(frozen=True)
class Rate:
    """Median and 90th percentile of seconds, of so many measurements, and tokens per second at the median."""

    p50_seconds: float
    p90_seconds: float
    n: int
    tokens_per_second: float

    @classmethod
    def of(cls, seconds: list[float], tokens: int) -> Rate:
        """Of measurements during each of which `tokens` were read or written."""
        middle = statistics.median(seconds)
        late = statistics.quantiles(seconds, n=10, method="inclusive")[-1] if len(seconds) > 1 else middle
        return cls(middle, late, len(seconds), tokens / middle)


@dataclass(frozen=True)
class Efficiency:
    """What was measured. Memory in bytes; what an engine does not tell is None.

    energy_of  whose counters the joules are added up from: packages of processors, the GPU
    """

    engine: str
    device: str
    threads: int
    workload: Workload
    disk_bytes: int
    weights_bytes: int | None
    cache_bytes: int | None
    resident_bytes: int | None
    peak_bytes: int
    device_peak_bytes: int | None
    loading_seconds: float
    prefill: Rate
    decode: Rate
    joules_per_repetition: float | None
    energy_of: tuple[str, ...]
    environment: dict[str, Any]

    def costs(self) -> list[dict[str, Any]]:
        """As measurements of a run (`quantbench.store.store.Store.append_cost`): reading a prompt, writing a token."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        common = {
            "engine": self.engine,
            "device": self.device,
            "threads": self.threads,
            **asdict(self.workload),
            "disk_bytes": self.disk_bytes,
            "weights_bytes": self.weights_bytes,
            "cache_bytes": self.cache_bytes,
            "resident_bytes": self.resident_bytes,
            "peak_memory_bytes": self.peak_bytes if self.device_peak_bytes is None else self.device_peak_bytes,
            "joules_per_repetition": self.joules_per_repetition,
            "energy_of": " ".join(self.energy_of),
            "environment": self.environment["id"],
            "at": at,
        }
        return [
            {"what": what, "seconds": rate.p50_seconds, **asdict(rate), **common}
            for what, rate in (("prefill", self.prefill), ("decode", self.decode))
        ]


def check_engine(engine: str, folder: Path, batch: int, python: Path | None) -> str | None:
    """The GGUF file of the folder that the engine reads, None for other files.

    Raises StoreError if the folder holds no model, ConfigError if the engine does not read what it holds, or is not
    installed here.
    """
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if not files and not (folder / "config.json").exists():
        raise StoreError(f"{folder}: no exported model: neither config.json nor a GGUF file lies there")
    if engine == "llama.cpp" and not files:
        raise ConfigError(f"--engine llama.cpp: {folder} has no GGUF file; export one with --to gguf")
    if engine == "llama.cpp" and batch != 1:
        raise ConfigError(f"--batch {batch}: with llama.cpp one sequence is measured; give 1")
    module, package = NEEDS[engine]
    if python is None and importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"--engine {engine}: {package} is not installed here. pip install {package}; or install it in an "
            "environment of its own and name its interpreter: --engine-python FOLDER/bin/python"
        )
    return files[0] if files else None


def measure(
    folder: Path, engine: str, workload: Workload, threads: int, device: str = "cpu", python: Path | None = None
) -> Efficiency:
    """Measure the exported model in `folder`.

    python: the interpreter of the engine's environment, None: this one. Raises what `check_engine` and `Workload.check`
    do, ModelError if the engine cannot load or run the model.
    """
    gguf = check_engine(engine, folder, workload.batch, python)
    workload.check(_positions(folder))
    asked = asdict(workload) | {"engine": engine, "gguf": gguf, "threads": threads, "device": device}
    asked["at_once"] = gguf is None and at_once(folder)
    with tempfile.TemporaryDirectory(prefix="quantbench-measure-") as request:
        write_json(Path(request) / "request.json", asked)
        found = answer_of(engines.__file__, folder, Path(request), python, f"{engine} cannot run {folder}")
    where = {
        **machine(),
        "engine": engine,
        "versions": found["versions"],
        "device": found["device"],
        "threads": threads,
    }
    joules = None if found["joules"] is None else sum(found["joules"].values()) / workload.repeat
    return Efficiency(
        engine,
        found["device"],
        threads,
        workload,
        disk_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in {".safetensors", ".gguf"}),
        weights_bytes=found.get("weights_bytes"),
        cache_bytes=found.get("cache_bytes"),
        resident_bytes=found["resident_bytes"],
        peak_bytes=found["peak_bytes"],
        device_peak_bytes=found.get("device_peak_bytes"),
        loading_seconds=found["loading_seconds"],
        prefill=Rate.of(found["prefill_seconds"], workload.batch * workload.context),
        decode=Rate.of(found["decode_seconds"], workload.batch),
        joules_per_repetition=joules,
        energy_of=tuple(found["joules"] or ()),
        environment={"id": digest(where, 12), **where},
    )


def _positions(folder: Path) -> int | None:
    config = folder / "config.json"
    if not config.exists():
        return None
    from transformers import AutoConfig

    return max_length(AutoConfig.from_pretrained(folder, local_files_only=True))
