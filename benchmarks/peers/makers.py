"""The tools beside which quantbench is measured: their environments, and what each makes of the packaged model.

Each gets an environment of its own in a folder, with the versions below; nothing of it enters that of quantbench. It is
given the model as a folder (float32) and the tokens that quantbench calibrates on itself (8 x 512 of `wiki_sample`),
and writes a folder or a GGUF file; what hqq makes is measured, and not read. A tensor of a GGUF file is what
llama.cpp's own quantizer makes of it; rows of 576 are no multiple of 256, so that only one layer of each block is of a
K type, and the others are of what llama.cpp puts in its place. A line that the scripts of other Python libraries print
has what quantizing has cost.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.cost import WORD
from safetensors.torch import save_file

from quantbench.calibration.base import AnyCalibration
from quantbench.config.composer import compose_cells
from quantbench.export.layouts.gguf import GGUF_FILE, Gguf
from quantbench.export.subject import Subject
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
TORCH = "torch==2.13.0"
CALIB = ("calib=wiki_sample", "calib.n=8", "calib.length=512")
TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class Maker:
    """A tool: the script that uses it, what its environment holds, and what it is asked for, by the file's name.

    apart  packages that are installed without asking what else they want
    """

    script: str
    packages: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    apart: tuple[str, ...] = ()


MAKERS = {
    "llmcompressor": Maker(
        "by_llmcompressor.py",
        (TORCH, "llmcompressor==0.14.0"),
        {f"llmcompressor_{name}": (name, bits) for name, bits in (("gptq", "4"), ("awq", "4"), ("w8a8", "8"))},
    ),
    "gptqmodel": Maker(
        "by_gptqmodel.py",
        (
            *(TORCH, "transformers>=5.20.2,<5.24", "accelerate", "datasets", "defuser", "device-smi", "logbar"),
            *("pillow", "protobuf", "pypcre", "requests", "threadpoolctl", "tokenicer", "torchao"),
        ),
        {f"gptqmodel_{name}": (name, "4") for name in ("symmetric", "asymmetric")},
        apart=("gptqmodel==7.7.0",),  # wants a newer torch, and runs with this one
    ),
    "autoround": Maker(
        "by_autoround.py", (TORCH, "auto-round==0.15.0"), {"autoround_20_iterations": ("auto_gptq", "20")}
    ),
    "torchao": Maker(
        "by_torchao.py",
        (TORCH, "transformers>=5.20.2,<5.24", "accelerate", "torchao==0.18.0"),
        {"torchao_int4": ("int4",), "torchao_w8a8": ("w8a8",)},
    ),
    "hqq_package": Maker("by_hqq.py", (TORCH, "transformers>=5.20.2,<5.24", "accelerate", "hqq==0.2.8.post1"), {}),
    "gguf": Maker(
        "by_llama_cpp.py",
        ("numpy", "gguf==0.19.0", "xllamacpp"),
        {f"llama_cpp_{kind.lower()}": (kind,) for kind in ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")},
    ),
}
ENVIRONMENT = {"GPTQMODEL_CPU_WORKERS": "2", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def prepare(folder: Path, tokens: str = TOKENS, sequences: int = 8) -> None:
    """The model, as a folder and as a GGUF file in float32, and a file of tokens that it is calibrated on."""
    if (folder / tokens).exists():
        return
    (cell,) = compose_cells(["quantizer=gptq", *CALIB, f"calib.n={sequences}"])
    handle: ModelHandle = cell.model.load()
    base = folder / "base"
    handle.model.save_pretrained(base)
    handle.tokenizer.save_pretrained(base)
    (folder / "f32").mkdir(exist_ok=True)
    Gguf().write(Subject("base", Artifact(), handle.model, handle.tokenizer, handle.model.dtype), folder / "f32")
    assert isinstance(cell.calib, AnyCalibration)
    save_file({"tokens": cell.calib.draw_set(handle.tokenizer).tokens}, folder / tokens)


def environment(folder: Path, name: str) -> Path:
    """The interpreter of a maker's environment, made if it is not there. Raises CalledProcessError."""
    place = folder / "environments" / name
    python, done = place / "bin" / "python", place / "installed"
    if not done.exists():
        print(f"== {name}: environment", flush=True)
        venv.create(place, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *MAKERS[name].packages], check=True)
        if MAKERS[name].apart:
            subprocess.run([*install, "--no-deps", *MAKERS[name].apart], check=True)
        done.touch()
    return python


def make(folder: Path, name: str, file: str) -> str | None:
    """Make one file if it is not there; what the tool said last where it failed."""
    out = folder / "files" / file
    if out.exists():
        return None
    maker = MAKERS[name]
    source = [folder / "f32" / GGUF_FILE] if name == "gguf" else [folder / "base", folder / TOKENS]
    begun = out.with_name(f"{file}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.parent.mkdir(exist_ok=True)
    print(f"== {file}", flush=True)
    try:
        python = environment(folder, name)
    except subprocess.CalledProcessError as error:
        return str(error)
    given = [*map(str, source), str(begun), *maker.files[file]]
    try:
        run(folder, file, [str(python), str(HERE / maker.script), *given])
    except MakerError as error:
        return str(error)
    begun.rename(out)
    return None


class MakerError(Exception):
    """A script that failed: the last line that it said."""


def run(folder: Path, name: str, command: Sequence[str], threads: int = 1) -> Mapping[str, Any]:
    """Run a script with so many threads; what it prints of what it has cost or found, if anything.

    All that it says goes into NAME.log. Raises MakerError.
    """
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as said:
        given = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
        if command[0] == sys.executable:
            given["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        else:
            given["PYTHONPATH"] = str(ROOT)
        status = subprocess.run(command, stdout=said, stderr=said, env=given, cwd=folder, check=False).returncode
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if status:
        raise MakerError(lines[-1] if lines else f"status {status}")
    costs = [line.removeprefix(WORD) for line in lines if line.startswith(WORD)]
    found: dict[str, Any] = json.loads(costs[-1]) if costs else {}
    return found
