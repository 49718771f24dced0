"""Times how soon the command answers where nothing is computed, against `python -c "import hydra, pandas"`.

    python benchmarks/startup.py [--outputs FOLDER]
    python benchmarks/startup.py --grid   # a dry run of four cells; a grid of four that is done, again; a first block

Each question is asked REPEATS times, all of them in turn, so that a slow moment of the machine hits none alone; the
table has medians of seconds by the clock and their ratios to the reference. The aim is a ratio of at most 3. Run it on
an idle machine. `show` and `status` ask a store: with FOLDER that one, which should hold a sweep, else an empty one.
The model and the data set of the last two are sought at an address where nobody answers; the default model, which the
last one uses, should lie in the cache.

--grid runs a grid first, without calibration data, and compares with `python -c "import torch, transformers"`: the aim
is then a ratio of at most 1.5, and of 2 where the model is loaded: until the first block is quantized, when the process
is ended.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
AIM = 3.0
REFERENCE = "import hydra, pandas"
GRID_REFERENCE, GRID_AIM, BLOCK_AIM = "import torch, transformers", 1.5, 2.0
GRID = ["-m", "quantizer=none,rtn,nf4,mxfp8", "eval=two_samples"]
SMALL = ["calib=wiki_sample", "calib.n=8", "eval=two_samples"]
CALIBRATED = ["-m", "quantizer=gptq,awq", "quantizer.weight.bits=4,3", *SMALL]
FIRST_BLOCK = ["quantizer=gptq", "quantizer.weight.bits=4", *SMALL]
NOBODY = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}


def questions(outputs: Path) -> dict[str, list[str]]:
    """What is asked: a name and the arguments of the command."""
    run = next((path.name for path in sorted(outputs.glob("runs/*"))), "none")
    return {
        "--help": ["--help"],
        "list": ["list"],
        "list eval": ["list", "eval"],
        "status": ["status", "--output-dir", str(outputs)],
        "show": ["show", run, "--output-dir", str(outputs)],
        "misspelt option": ["quantizer=gptq", "quantizer.weight.bit=4"],
        "misspelt choice": ["quantizer=gtpq"],
        "wrong type": ["quantizer=gptq", "quantizer.weight.bits=four"],
        "missing required option": ["model=local"],
        "unreachable model": ["model=smollm2_135m"],
        "unreachable data set": ["quantizer=gptq", "calib=c4"],
    }


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """How long a command takes, and the last line that it says."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - start
    said = (done.stderr or done.stdout).strip().splitlines()
    return taken, f"[{done.returncode}] {said[-1] if said else ''}"


def seconds_until(said: str, command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """How long it takes until a line of the command begins with what is `said`, and the line; then it is ended."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=-1, text=True
    )
    with process:
        assert process.stderr is not None
        found = next((line for line in process.stderr if line.startswith(said)), None)
        taken = time.perf_counter() - start
        process.terminate()
    if found is None:
        sys.exit(f"{' '.join(command)} ended before it said {said!r}")
    return taken, found.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="a folder of results with a sweep in it")
    parser.add_argument("--grid", action="store_true", help="grids instead of questions")
    given = parser.parse_args()
    reference, aim = (GRID_REFERENCE, GRID_AIM) if given.grid else (REFERENCE, AIM)
    with tempfile.TemporaryDirectory() as scratch:
        outputs = given.outputs.absolute() if given.outputs else Path(scratch) / "outputs"
        own = {"QUANTBENCH_OUTPUTS": str(outputs)} | ({} if given.grid else {"HF_HOME": f"{scratch}/hf", **NOBODY})
        source = str(Path(__file__).parents[1] / "src")
        environment = {**os.environ, **own, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
        commands = {"reference": [sys.executable, "-c", reference]}
        grids = {"dry run": [*CALIBRATED, "dry_run=true"], "finished grid": GRID, "first block": FIRST_BLOCK}
        asked = grids if given.grid else questions(outputs)
        if given.grid:
            begin = [sys.executable, "-m", "quantbench", *GRID]
            subprocess.run(begin, cwd=scratch, env=environment, capture_output=True, check=True)
        for name, arguments in asked.items():
            commands[name] = [sys.executable, "-m", "quantbench", *arguments]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        answers: dict[str, str] = {}
        for _ in range(REPEATS):
            for name, command in commands.items():
                where = (command, Path(scratch), environment)
                found, answers[name] = seconds_until("quantizing", *where) if name == "first block" else seconds(*where)
                taken[name].append(found)
    first = statistics.median(taken["reference"])
    print(f"{'question':<26}{'seconds':>9}{'ratio':>8}   [exit status] last line of the answer")
    for name, times in taken.items():
        middle = statistics.median(times)
        late = " <" if middle > (BLOCK_AIM if name == "first block" else aim) * first else ""
        print(f"{name:<26}{middle:>9.2f}{middle / first:>8.2f}{late:<2} {answers[name][:100]}")


if __name__ == "__main__":
    main()
