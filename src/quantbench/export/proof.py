"""That an export is its run: read again in a process of its own by what will read it, and compared on a text."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantbench.core import tensors
from quantbench.core.errors import ConfigError
from quantbench.core.files import write_json
from quantbench.export import reader
from quantbench.export.asking import answer_of
from quantbench.export.subject import Equality, Subject
from quantbench.export.tolerance import TOLERANCES
from quantbench.export.windows import Windows

ENGINES: dict[str, tuple[tuple[str, str], ...]] = {
    "dense": (("transformers", "transformers"),),
    "compressed-tensors": (("compressed_tensors", "compressed-tensors"),),
    "gptq": (("gptqmodel", "gptqmodel"), ("optimum", "optimum")),
    "awq": (("gptqmodel", "gptqmodel"),),
    "gguf": (("gguf", "gguf"),),
}
"""What transformers needs to read each format: modules, and the packages that have them."""


@dataclass(frozen=True)
class Proof:
    """What was measured, and against what.

    kl        mean KL(export || run) per token, nats; kl_max: the largest of a token
    weights_identical  of so many layers that could be looked into (weights_compared) the weights are the run's, to the
              bit
    tolerance the largest kl, and the largest logit difference or None (quantbench.export.tolerance)
    versions  of the packages that read it
    """

    equality: Equality
    tolerance: dict[str, float | None]
    equivalent: bool
    text: str
    windows: int
    tokens: int
    kl: float
    kl_max: float
    largest_logit_difference: float
    top1_agreement: float
    weights_compared: int
    weights_identical: int
    versions: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_engine(layout: str, python: Path | None) -> None:
    """Raise ConfigError if what reads the format is not installed, in this interpreter or in `python`."""
    wanted = ENGINES[layout]
    if python is None:
        missing = [package for module, package in wanted if importlib.util.find_spec(module) is None]
    else:
        missing = _missing_in(python, wanted)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        where = "here" if python is None else f"in {python}"
        install = 'pip install "quantbench[export]"' if layout == "compressed-tensors" else _own_environment(missing)
        raise ConfigError(
            f"--to {layout}: {' and '.join(missing)}, with which transformers reads it for the proof, {verb} "
            f"not installed {where}. {install}; or --without-proof, which the export then says of itself"
        )


def _own_environment(missing: Sequence[str]) -> str:
    return (
        f"Install it in an environment of its own (pip install transformers {' '.join(missing)}) and name its "
        "interpreter: --engine-python FOLDER/bin/python"
    )


def _missing_in(python: Path, wanted: Sequence[tuple[str, str]]) -> list[str]:
    names = [module for module, _ in (("transformers", ""), ("safetensors", ""), *wanted)]
    code = f"import importlib.util as u, json; print(json.dumps([n for n in {names!r} if u.find_spec(n) is None]))"
    try:
        done = subprocess.run(
            [str(python), "-c", code], capture_output=True, encoding="utf-8", errors="replace", check=True
        )
        absent = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ConfigError(f"--engine-python {python}: no Python interpreter that runs: {error}") from error
    packages = dict(wanted)
    return [packages.get(name, name) for name in absent]


def prove(
    subject: Subject,
    folder: Path,
    windows: Windows,
    equality: Equality,
    python: Path | None = None,
    gguf: str | None = None,
) -> Proof:
    """Compare what the export in `folder` computes with the run's model, which is installed in `subject.model`.

    python: the interpreter that reads it, None: this one; gguf: the file in the folder that is to be read.
    Raises ModelError if it cannot be read, or gives numbers that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="quantbench-proof-") as request:
        _ask(subject, windows, gguf, Path(request))
        what = "the export was written, and transformers cannot read it"
        found = answer_of(reader.__file__, folder, Path(request), python, what)
    limit = TOLERANCES[equality]
    near = found["kl"] <= limit.kl and (limit.logit is None or found["largest_logit_difference"] <= limit.logit)
    return Proof(equality, asdict(limit), bool(near), windows.origin, **found)


def _ask(subject: Subject, windows: Windows, gguf: str | None, request: Path) -> None:
    model = subject.model
    for index, tokens in enumerate(windows.tokens):
        with torch.inference_mode():
            logits = model(input_ids=tokens[None], use_cache=False).logits[0]
        tensors.save(request / f"{index}.safetensors", {"tokens": tokens[None].clone(), "logits": logits.clone()})
    dtype = str(subject.dtype).removeprefix("torch.")
    modules = dict(model.named_modules())
    digests = {
        name: (dtype, _digest(modules[name]))
        for name in subject.artifact.weights
        if isinstance(modules.get(name), nn.Module)
    }
    write_json(
        request / "request.json",
        {"threads": torch.get_num_threads(), "windows": len(windows.tokens), "gguf": gguf, "weights": digests},
    )


def _digest(module: nn.Module) -> str:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return hashlib.sha256(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
