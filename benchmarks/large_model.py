"""Times recipes on blocks as large as those of an 8B model: seconds a block and peak memory, recipe beside recipe.

    python benchmarks/large_model.py   # on a GPU: blocks of Llama-3.1-8B, 128 x 2048 tokens
    python benchmarks/large_model.py --hidden 576 --ffn 1536 --heads 9 --kv-heads 3 --n 16 --length 512

The weights are random and the vocabulary small: what a block costs does not depend on their values. "s before" is spent
once a model (the arguments of every block are captured, a rotation is folded in), "s a block" for each: a model of 32
blocks takes the first and 32 times the second, and its weights in host memory besides.
"""

from __future__ import annotations

import argparse
import gc
import time

import torch
from hydra import compose, initialize_config_dir
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quantbench.config.folders import config_dir
from quantbench.config.resolving import resolved_node
from quantbench.core.build import build
from quantbench.core.meter import Meter
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model

RECIPES = "rtn,hqq,gptq,awq,spqr,smoothquant,quarot"
VOCABULARY = 4096


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--recipes", default=RECIPES, help="comma-separated; others are compared with the first")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--ffn", type=int, default=14336)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--n", type=int, default=128, help="calibration sequences")
    parser.add_argument("--length", type=int, default=2048, help="tokens in each")
    return parser.parse_args()


def make_model(given: argparse.Namespace) -> ModelHandle:
    """Blocks of the size asked for, in bfloat16, with random weights, on the CPU."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=given.hidden,
        intermediate_size=given.ffn,
        num_hidden_layers=given.blocks,
        num_attention_heads=given.heads,
        num_key_value_heads=given.kv_heads,
        max_position_embeddings=given.length,
        dtype="bfloat16",
    )
    with torch.device(given.device):
        model = LlamaForCausalLM(config)
    tokenizer: PreTrainedTokenizerFast = None  # type: ignore[assignment] # nothing is read
    torch.nn.Module.to(model, device="cpu", dtype=torch.bfloat16)
    return ModelHandle(model.requires_grad_(False).train(False), tokenizer, "random")


def make_recipe(name: str) -> Recipe:
    """A shipped recipe as it is."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return build(resolved_node(compose("config", [f"quantizer={name}"]), "quantizer"), Recipe, "quantizer")


def main() -> None:
    """Quantize with each recipe, and print what it took."""
    given = arguments()
    device, handle = torch.device(given.device), make_model(given)
    tokens = torch.randint(0, VOCABULARY, (given.n, given.length), generator=torch.Generator().manual_seed(0))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    weights = sum(p.numel() for p in handle.model.model.layers[0].parameters())
    print(f"{where}, torch {torch.__version__}: {given.blocks} blocks of {weights / 1e6:.0f}M weights in bfloat16, ")
    print(f"{given.n} x {given.length} calibration tokens")
    print(f"{'recipe':<14}{'s before':>10}{'s a block':>11}{'x first':>9}{'GiB device':>12}{'GiB host':>10}")
    first = None
    for name in given.recipes.split(","):
        recipe = make_recipe(name)
        gc.collect()
        meter, started, begun = Meter(device), time.perf_counter(), list[float]()
        data = None if recipe.data_free else tokens

        def note(_done: int, _total: int, begun: list[float] = begun) -> None:
            begun.append(time.perf_counter())

        quantize_model(handle, recipe, data, device, note)
        cost = meter.read()
        before = begun[0] - started
        seconds = (cost["seconds"] - before) / given.blocks
        first = first or seconds
        memory = cost.get("peak_device_bytes", 0) / 2**30
        host = cost["peak_memory_bytes"] / 2**30
        print(
            f"{name:<14}{before:>10.2f}{seconds:>11.2f}{seconds / first:>9.1f}{memory:>12.2f}{host:>10.2f}", flush=True
        )
        handle.restore()


if __name__ == "__main__":
    main()
