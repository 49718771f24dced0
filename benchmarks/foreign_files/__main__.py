"""Files that other tools quantized, beside quantbench's own recipes: the packaged model, the same calibration tokens.

    python -m benchmarks.foreign_files FOLDER                # what is missing there; an hour, some 15 GB
    python -m benchmarks.foreign_files FOLDER --only gguf    # files of one maker
    python -m benchmarks.foreign_files FOLDER --table        # the table of what is there; makes nothing

Each maker gets an environment of its own in FOLDER, with the versions below; nothing of it enters that of quantbench.
It is given the model as a folder (float32) and the tokens that quantbench calibrates on itself (8 x 512 of
`wiki_sample`), and writes a folder or a GGUF file. A tensor of a GGUF file is what llama.cpp's own quantizer makes of
it; rows of 576 are no multiple of 256, so that only one layer of each block is of a K type, and the others are of what
llama.cpp puts in its place. All files are then scored as `quantizer=checkpoint`, in one sweep with recipes of
quantbench, on `wiki_sample` and `code_sample`.

What failed is named at the end and in the table, with the last line that it said. Everything goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

import quantbench
from quantbench.calibration.base import AnyCalibration
from quantbench.config.composer import compose_cells
from quantbench.export.layouts.gguf import GGUF_FILE, Gguf
from quantbench.export.subject import Subject
from quantbench.launch.naming import sweep_name
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
TORCH = "torch==2.13.0"
CALIB = ("calib=wiki_sample", "calib.n=8", "calib.length=512")
OURS = ("rtn", "gptq", "awq", "gptq_awq")
TESTS = ("wiki_sample", "code_sample")


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
        {"llmcompressor_gptq": ("gptq",), "llmcompressor_awq": ("awq",), "llmcompressor_w8a8": ("w8a8",)},
    ),
    "gptqmodel": Maker(
        "by_gptqmodel.py",
        (
            *(
                TORCH,
                "transformers>=5.20.2,<5.24",
                "accelerate",
                "datasets",
                "defuser",
                "device-smi",
                "logbar",
                "pillow",
            ),
            *("pillow", "protobuf", "pypcre", "requests", "threadpoolctl", "tokenicer", "torchao"),
        ),
        {"gptqmodel_symmetric": ("symmetric",), "gptqmodel_asymmetric": ("asymmetric",)},
        apart=("gptqmodel==7.7.0",),  # wants a newer torch, and runs with this one
    ),
    "autoround": Maker(
        "by_autoround.py", (TORCH, "auto-round==0.15.0"), {"autoround_20_iterations": ("auto_gptq", "20")}
    ),
    "gguf": Maker(
        "by_llama_cpp.py",
        ("numpy", "gguf==0.19.0", "xllamacpp"),
        {f"llama_cpp_{kind.lower()}": (kind,) for kind in ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")},
    ),
}
ENVIRONMENT = {"GPTQMODEL_CPU_WORKERS": "2", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def prepare(folder: Path) -> None:
    """The model, as a folder and as a GGUF file in float32, and the tokens that it is calibrated on."""
    if (folder / "tokens.safetensors").exists():
        return
    (cell,) = compose_cells(["quantizer=gptq", *CALIB])
    handle: ModelHandle = cell.model.load()
    base = folder / "base"
    handle.model.save_pretrained(base)
    handle.tokenizer.save_pretrained(base)
    (folder / "f32").mkdir(exist_ok=True)
    Gguf().write(Subject("base", Artifact(), handle.model, handle.tokenizer, handle.model.dtype), folder / "f32")
    assert isinstance(cell.calib, AnyCalibration)
    save_file({"tokens": cell.calib.draw_set(handle.tokenizer).tokens}, folder / "tokens.safetensors")


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
    out, log = folder / "files" / file, folder / f"{file}.log"
    if out.exists():
        return None
    maker = MAKERS[name]
    source = [folder / "f32" / GGUF_FILE] if name == "gguf" else [folder / "base", folder / "tokens.safetensors"]
    begun = out.with_name(f"{file}.begun")
    subprocess.run(["rm", "-rf", begun], check=True)
    begun.parent.mkdir(exist_ok=True)
    print(f"== {file}", flush=True)
    try:
        python = environment(folder, name)
    except subprocess.CalledProcessError as error:
        return str(error)
    command: list[str | Path] = [python, HERE / maker.script, *source, begun, *maker.files[file]]
    with log.open("w", encoding="utf-8") as said:
        given = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        given.pop("PYTHONPATH", None)
        status = subprocess.run(command, stdout=said, stderr=said, env=given, cwd=folder, check=False).returncode
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"status {status}"
    begun.rename(out)
    return None


def paths(folder: Path) -> dict[str, Path]:
    """The files that are there, by name."""
    found = {}
    for maker in MAKERS.values():
        for file in maker.files:
            out = folder / "files" / file
            if out.exists():
                found[file] = next(iter(out.glob("*.gguf")), out)
    return found


def command(files: dict[str, Path]) -> list[str]:
    """The sweep's overrides."""
    return [
        f"quantizer=checkpoint,{','.join(OURS)}",
        f"quantizer.path={','.join(map(str, files.values()))}",
        "quantizer.weight.group_size=64",
        *CALIB,
        "eval=two_samples",
        "save=none",
        "threads=1",
    ]


def table(files: dict[str, Path]) -> None:
    """Print what the sweep has found: by the bits of all parameters, then by KL on the text calibrated on."""
    frame = quantbench.read_sweep(sweep_name(command(files), {}))
    lines: list[tuple[float, float, str]] = []
    for _, rows in frame.groupby("run_id", sort=False):
        first = rows.iloc[0]
        foreign = str(first.variant) if first.quantizer == "checkpoint" else ""
        name = next((file for file in files if f"={file}" in foreign), str(first.quantizer))
        cells = [name, f"{first.effective_bits:.2f}", f"{first.bits_model:.2f}"]
        kl = 0.0
        for test in reversed(TESTS):
            own = rows[rows.distribution == test].set_index("metric")
            kl = float(own.value["kl"])
            change = own.difference["perplexity"], own.difference_stderr["perplexity"]
            paired = "" if pd.isna(change[0]) else f"{change[0]:+.2f}±{change[1]:.2f}"
            cells[3:3] = [f"{own.value['perplexity']:.2f}", paired, f"{kl:.4f}±{own.stderr['kl']:.4f}"]
        lines.append((float(first.bits_model), kl, f"| {' | '.join(cells)} |"))
    heads = [f"{test}: {what}" for test in TESTS for what in ("perplexity", "− full precision", "KL")]
    print(f"| file or recipe | bits | bits of the model | {' | '.join(heads)} |")
    print("|---" * (3 + len(heads)) + "|")
    for _, _, line in sorted(lines):
        print(line)


def main() -> int:
    """Make what is missing, score it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=list(MAKERS), help="this maker; may be given again")
    parser.add_argument("--table", action="store_true", help="make nothing")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    if not given.table:
        prepare(folder)
        for name in given.only or MAKERS:
            for file in MAKERS[name].files:
                if (reason := make(folder, name, file)) is not None:
                    failed[file] = reason
        line = [sys.executable, "-m", "quantbench", "-m", *command(paths(folder))]
        subprocess.run(line, check=True, cwd=ROOT)
    table(paths(folder))
    for file, reason in failed.items():
        print(f"not made: {file}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
