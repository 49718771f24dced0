"""How much memory quantizing takes, beside the model's own bytes; and that it does not follow the depth of a model.

    python benchmarks/memory.py                       # some recipes on the packaged model; ten minutes
    python benchmarks/memory.py gptq --sequences 32
    python benchmarks/memory.py --depths 8 32         # GPTQ on sharded models of so many blocks, in files

Each line is a process of its own. Peaks are above what the process held after its imports, with its calibration
tokens, before it loaded the model: of private memory, and with the pages of files that are mapped (the model's own,
and those a model is worked on in), which the system takes back when it needs them. The packaged model is
calibrated on 8 sequences of 512 tokens. Models of --depths have random weights, blocks of 46 MiB, and are told that
there are 0.25 GiB of memory, so that all that is made of them lies in files; they are quantized, and not evaluated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

RECIPES = ("gptq", "awq", "smoothquant", "hqq", "rtn")
SHAPE = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "vocab_size": 500}


def measure(recipe: str, sequences: int, folder: Path | None, answer: Any) -> None:
    """Quantize in this process and send what it took. folder: of a model, None for the packaged one."""
    import numba  # noqa: F401 - what the kernels import when they are first used
    import torch
    import transformers  # noqa: F401 - what loading a model imports
    from benchmarks.peers.cost import Peak, private, resident

    from quantbench.calibration.base import AnyCalibration
    from quantbench.config.composer import compose_cells
    from quantbench.config.named import named_recipe
    from quantbench.core.memory import Memory, give_back
    from quantbench.models.handle import ModelHandle
    from quantbench.pipeline.walker import quantize_model

    torch.set_num_threads(1)
    model = [] if folder is None else ["model=local", f"model.path={folder}", "model.dtype=float32"]
    data = ["calib=wiki_sample", f"calib.n={sequences}", "calib.length=512"]
    (cell,) = compose_cells(["quantizer=gptq", *model, *data])
    chosen, tokens = named_recipe(recipe), None
    if folder is not None:
        tokens = torch.randint(0, SHAPE["vocab_size"], (sequences, 512), generator=torch.Generator().manual_seed(0))
    elif not chosen.data_free:
        assert isinstance(cell.calib, AnyCalibration)
        tokens = cell.calib.draw_set(cell.model.load_tokenizer()).tokens
    give_back()
    imported, own, peak = resident(), private(), Peak()
    handle: ModelHandle = cell.model.load()
    if folder is not None:
        handle.memory = Memory(2**28, Path(tempfile.gettempdir()))
    quantize_model(handle, chosen, tokens, torch.device("cpu"), lambda _done, _all: None)
    found = {
        "model": handle.bytes,
        "private": peak.stop() - own,
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - imported,
    }
    answer.send(json.dumps(found))


def row(name: str, recipe: str, sequences: int, folder: Path | None = None) -> list[str]:
    """A line of the table, measured."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(recipe, sequences, folder, theirs))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{name}: status {process.exitcode}")
    found = json.loads(ours.recv())
    shares = [f"{found[key] / found['model']:.2f}" for key in ("private", "resident")]
    return [name, *(f"{found[key] / 2**20:,.0f}" for key in ("model", "private")), *shares]


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--sequences", type=int, default=8, help="of 512 tokens")
    parser.add_argument("--depths", type=int, nargs="+", help="blocks of models in files, instead")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for depth in given.depths or ():
            from sharded import save_sharded

            place = Path(folder) / str(depth)
            save_sharded(place, num_hidden_layers=depth, **SHAPE)
            rows.append(row(f"gptq, {depth} blocks", "gptq", 2, place))
        rows += [row(recipe, recipe, given.sequences) for recipe in ([] if given.depths else given.recipes)]
    header = ["", "model, MiB", "private, MiB", "private, of the model's bytes", "with mapped files"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
