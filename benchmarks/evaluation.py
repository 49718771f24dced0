"""What the outcomes at positions cost: processor seconds of an evaluation with them, and with the least that KL takes.

A model of random weights in the shape of SmolLM2-135M is scored on windows of random tokens against a reference:
decoder, logits of both heads, then at each position either negative log-likelihood, KL and top-1 agreement alone, or
all that is stored (quantbench.tasks.positions). The floor is the decoder once and the head twice, the second time for
the reference.

    python benchmarks/evaluation.py [--length 512] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from quantbench.tasks.logits import SplitModel, log_probabilities
from quantbench.tasks.positions import distributions, outcomes

SHAPE = LlamaConfig(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)


def least(ours: Tensor, theirs: Tensor, targets: Tensor) -> None:
    """Negative log-likelihood, KL and top-1 agreement, of logits [T, V]."""
    for (block, q), (_, p) in zip(log_probabilities(ours), log_probabilities(theirs), strict=True):
        -q.gather(1, targets[block, None])
        torch.linalg.vecdot(p.exp(), p - q)
        (q.argmax(1) == p.argmax(1)).double()


def everything(ours: Tensor, theirs: Tensor, targets: Tensor) -> None:
    """All outcomes, of logits [T, V]."""
    for (block, q), (_, p) in zip(distributions(ours), distributions(theirs), strict=True):
        outcomes(q, targets[block], p)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Processor seconds: the least of some repeats, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        split = SplitModel(LlamaForCausalLM(SHAPE).train(False))
        tokens = torch.randint(0, SHAPE.vocab_size, (1, given.length))
        hidden = split.hidden(tokens)
        ours, targets = split.logits(hidden), tokens[0].roll(-1)
        theirs = ours + 0.3 * torch.randn_like(ours)
        decoder = seconds(lambda: split.hidden(tokens), given.repeats)
        heads = 2 * seconds(lambda: split.logits(hidden), given.repeats)
        before = seconds(lambda: least(ours, theirs, targets), given.repeats)
        after = seconds(lambda: everything(ours, theirs, targets), given.repeats)
    floor, least_of_all = decoder + heads, decoder + heads + before
    rows = [
        ["decoder once, head twice", floor, 1.0, ""],
        ["positions: nll, KL, agreement", before, "", ""],
        ["positions: all outcomes", after, "", after / before],
        ["evaluation: nll, KL, agreement", least_of_all, least_of_all / floor, ""],
        ["evaluation: all outcomes", floor + after, (floor + after) / floor, (floor + after) / least_of_all],
    ]
    print(f"one window of {given.length} tokens, one thread, processor seconds\n")
    print(tabulate(rows, ["", "seconds", "of the floor", "of the least metrics"], tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
