"""What packing cells into one worker saves: 12 cells of the packaged model in one worker, and in 12 processes.

    python benchmarks/packing.py [--cells 12]

Prints seconds by the clock of both, one after the other on the same machine, and their ratio. Each single process is
what `cells_per_job=1` runs: imports, model, texts and the stored baseline are read anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

QUANTIZERS = ("rtn", "nf4", "mxfp4", "nvfp4", "fp8", "mxint8", "w4a8", "w4a4", "zeroquant", "llm_int8", "mxfp8", "kv8")


def command(names: list[str], outputs: str, *more: str) -> float:
    """Seconds that a grid of these recipes takes."""
    arguments = ["-m", f"quantizer={','.join(names)}", "scale=smoke", "threads=1", "eval=two_samples", *more]
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "quantbench", *arguments],
        env={**os.environ, "QUANTBENCH_OUTPUTS": outputs},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=len(QUANTIZERS), choices=range(2, len(QUANTIZERS) + 1))
    names = list(QUANTIZERS[: parser.parse_args().cells])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        command(["none"], one)  # model, texts and baseline are in the caches of both
        command(["none"], many)
        quick = ["cluster=local", "cluster.poll_seconds=0.5", "cluster.grace_seconds=1"]
        packed = command(names, one, *quick)
        single = sum(command([name], many) for name in names)
    print(f"{len(names)} cells: packed {packed:.0f} s, single processes {single:.0f} s, ratio {packed / single:.2f}")


if __name__ == "__main__":
    main()
