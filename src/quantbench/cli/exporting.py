"""`quantbench export`: a stored run as files that other programs load. Returns its exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.cli.parser import subcommand
from quantbench.core.errors import ConfigError
from quantbench.core.files import readable_bytes
from quantbench.core.paths import local_path

if TYPE_CHECKING:
    from quantbench.export.exporter import Exported

FORMATS = {
    "dense": "dequantized weights as safetensors, for everything; no memory is saved",
    "compressed-tensors": "vLLM, SGLang, transformers: integers of 2-8 bits, W8A8, fp8, NVFP4, MXFP4, MXFP8",
    "gptq": "GPTQModel, vLLM, transformers: integers of 2, 3, 4 or 8 bits, act-order included",
    "awq": "vLLM, transformers: integers of 4 bits",
    "gguf": "llama.cpp: integers of up to 8 bits and MXFP4, of Llama and Qwen models",
}

EXAMPLES = (
    """\
formats:
"""
    + "".join(f"  {name:<19} {about}\n" for name, about in FORMATS.items())
    + """
  quantbench export 1f2e --to compressed-tensors served       for vLLM; read again by transformers and compared
  quantbench export 1f2e --to gguf served-gguf                for llama.cpp
  quantbench export 1f2e --to dense served --push ME/MODEL    and upload the folder; --dry-run: say what would be
"""
)


def export(arguments: list[str]) -> int:
    """`quantbench export RUN --to FORMAT OUT`: write, read again, compare, describe; perhaps upload."""
    parser = subcommand(
        "export",
        "A stored run's quantized model as a folder that other programs load. What a format cannot hold exactly is "
        "refused; what was written is read again in a process of its own and compared with the run.",
        EXAMPLES,
    )
    parser.add_argument("run", help="a run id, or its first characters")
    parser.add_argument("out", type=local_path, metavar="OUT", help="a new folder")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--model-path", type=local_path, metavar="DIR", help="the folder of a model=local, if it moved")
    parser.add_argument("--text", type=local_path, metavar="FILE", help="compare on it; default: the run's own tests")
    parser.add_argument("--windows", type=int, default=8, metavar="N", help="windows compared (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, metavar="N", help="tokens of each (default: %(default)s)")
    parser.add_argument("--engine-python", type=local_path, metavar="FILE", help="the interpreter that reads it again")
    parser.add_argument("--without-proof", action="store_true", help="do not read it again; the card says so")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this repository of the hub")
    parser.add_argument("--public", action="store_true", help="with --push: make the repository a public one")
    parser.add_argument("--dry-run", action="store_true", help="with --push: say what would be uploaded; no network")
    given = parser.parse_args(arguments)
    if given.to not in FORMATS:
        raise ConfigError(f"--to {given.to}: no such format. Formats: {', '.join(FORMATS)}")
    for name, least in (("windows", 1), ("length", 2)):
        if getattr(given, name) < least:
            raise ConfigError(f"--{name} {getattr(given, name)}: give {least} or more")
    if given.push is None and (given.dry_run or given.public):
        raise ConfigError("--dry-run and --public are about --push OWNER/NAME, which is missing")
    from quantbench.cells.stored_run import find_run
    from quantbench.export.folder import check_new
    from quantbench.export.push import check_repository, push
    from quantbench.store.store import Store

    if given.push is not None:
        check_repository(given.push)
    store = Store(given.output_dir)
    check_new(given.out)
    find_run(store, given.run, "--output-dir FOLDER")
    # What is wrong so far is said before torch is imported, which takes seconds.
    from quantbench.export.exporter import Options, check_equivalent
    from quantbench.export.exporter import export as export_run

    options = Options(
        model_path=given.model_path,
        prove=not given.without_proof,
        python=given.engine_python,
        text=given.text,
        windows=given.windows,
        length=given.length,
    )
    done = export_run(store, given.run, given.to, given.out, options)
    _say(done, given.to, given.out)
    check_equivalent(done, given.to, given.out)
    if given.push is not None:
        sys.stdout.write(push(given.out, given.push, public=given.public, dry_run=given.dry_run))
    return 0


def _say(done: Exported, to: str, out: Path) -> None:
    lines = [f"{out}: run {done.run_id} as {to}, {readable_bytes(done.size)}"]
    lines += [f"  {note}" for note in done.notes]
    proof = done.proof
    if proof is None:
        lines.append("Not proved (--without-proof): it was not read again.")
    else:
        logit = proof.tolerance["logit"]
        allowed = "" if logit is None else f" (allowed {logit:g})"
        lines.append(
            f"Read again by transformers {proof.versions.get('transformers', '?')}; {proof.windows} windows, "
            f"{proof.tokens} tokens of {proof.text}:"
        )
        lines.append(f"  KL(export || run)          {proof.kl:.3g} nats per token (allowed {proof.tolerance['kl']:g})")
        lines.append(f"  largest logit difference   {proof.largest_logit_difference:.3g}{allowed}")
        lines.append(f"  weights identical to a bit {proof.weights_identical} of {proof.weights_compared} layers")
        lines.append("Equivalent." if proof.equivalent else "NOT EQUIVALENT.")
    sys.stdout.write("\n".join(lines) + "\n")
