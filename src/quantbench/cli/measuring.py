"""`quantbench measure`: what an exported model needs, and how quick it is, in an engine here. Returns its status."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from quantbench.cli.parser import subcommand
from quantbench.core.errors import ConfigError
from quantbench.core.files import readable_bytes
from quantbench.core.paths import local_path
from quantbench.core.progress import counted

if TYPE_CHECKING:
    from quantbench.efficiency.measure import Efficiency, Rate

EXAMPLES = """\
  quantbench measure served                                      by transformers, as the folder's card has it
  quantbench measure served-gguf --engine llama.cpp --threads 4  by llama.cpp (pip install xllamacpp)
  quantbench measure served --device cuda --batch 8 --context 1024 --decode 128
"""


def measure(arguments: list[str]) -> int:
    """`quantbench measure FOLDER`: load it in an engine, time it, keep what was found with the run it was made of."""
    parser = subcommand(
        "measure",
        "Bytes, memory, and rates of an exported model: it is loaded by an engine in a process of its own, which reads "
        "prompts and generates tokens. What was measured is added to the costs of the run that was exported.",
        EXAMPLES,
    )
    parser.add_argument("folder", type=local_path, metavar="FOLDER", help="what `quantbench export` wrote")
    parser.add_argument("--engine", default="transformers", metavar="NAME", help="transformers (default) or llama.cpp")
    parser.add_argument("--engine-python", type=local_path, metavar="FILE", help="the engine's interpreter")
    parser.add_argument("--batch", type=int, default=1, help="sequences at once (default: %(default)s)")
    parser.add_argument("--context", type=int, default=512, help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--decode", type=int, default=64, help="tokens generated after it (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="repetitions before (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of a processor (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of transformers (default: %(default)s)")
    given = parser.parse_args(arguments)
    from quantbench.efficiency.measure import NEEDS
    from quantbench.efficiency.measure import measure as measured
    from quantbench.efficiency.workload import Workload
    from quantbench.store.store import Store

    if given.engine not in NEEDS:
        raise ConfigError(f"--engine {given.engine}: no such engine. Engines: {', '.join(NEEDS)}")
    if given.threads < 1:
        raise ConfigError(f"--threads {given.threads}: give 1 or more")
    if given.engine == "llama.cpp" and given.device != "cpu":
        raise ConfigError(f"--device {given.device}: llama.cpp is measured on the processor; give cpu")
    workload = Workload(given.batch, given.context, given.decode, given.warm_up, given.repeat)
    found = measured(given.folder, given.engine, workload, given.threads, given.device, given.engine_python)
    store, proof, kept = Store(given.output_dir), given.folder / "proof.json", ""
    exported = json.loads(proof.read_text(encoding="utf-8")) if proof.exists() else {}
    run_id = exported.get("run_id")
    if run_id is not None and store.run_dir(run_id).exists():
        for cost in found.costs():
            store.append_cost(run_id, cost | {"format": exported["format"]})
        kept = f"Added to the costs of run {run_id}: `quantbench collate` has them in costs.csv."
    else:
        kept = f"Not kept: the run that {given.folder} was exported from is not in {given.output_dir}."
    sys.stdout.write("\n".join([*lines(found), kept, ""]))
    return 0


def lines(found: Efficiency) -> list[str]:
    """What was measured, in words."""
    work = found.workload
    told = {
        "on disk": found.disk_bytes,
        "weights in memory": found.weights_bytes,
        f"key-value cache of {work.batch} x {work.context + work.decode} tokens": found.cache_bytes,
        "resident after it": found.resident_bytes,
        "peak of the process": found.peak_bytes,
        "peak on the device": found.device_peak_bytes,
    }
    joules = found.joules_per_repetition
    energy = "no counter of energy can be read here"
    if joules is not None:
        energy = f"{joules:.3g} J per repetition, of {', '.join(found.energy_of)}"
    return [
        f"{found.engine} on {found.device}, {counted(found.threads, 'thread')}; batch {work.batch}, "
        f"context {work.context}, {work.decode} tokens generated, {work.repeat} repetitions after {work.warm_up}:",
        *(f"  {name:<42} {readable_bytes(value)}" for name, value in told.items() if value is not None),
        f"  {'loading':<42} {found.loading_seconds:.2f} s",
        f"  {'reading the prompts':<42} {_words(found.prefill)}",
        f"  {'generating a token':<42} {_words(found.decode)}",
        f"  {'energy':<42} {energy}",
    ]


def _words(rate: Rate) -> str:
    ms = 1000 * rate.p50_seconds, 1000 * rate.p90_seconds
    return f"{rate.tokens_per_second:.1f} tokens/s; median {ms[0]:.4g} ms, 90 % within {ms[1]:.4g} ms (n = {rate.n})"
