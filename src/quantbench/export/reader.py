"""The proof's other half: a process of its own that reads an export as a user would, and compares its logits.

    python reader.py FOLDER REQUEST

It imports what an engine's environment has (torch, transformers, safetensors), nothing of this package, so that the
interpreter may be another one. REQUEST is a folder: request.json {"threads", "windows", "gguf", "weights": {layer:
sha256 of the weight's bytes in the model's dtype}}, and for each window i a file i.safetensors with `tokens` int64
[1, L] and `logits` [L, V], those of the run. The answer is written there as answer.json.
"""

import hashlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def main(folder: Path, request: Path) -> None:
    """Read the export, run every window, write the answer."""
    import torch

    asked = json.loads((request / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(asked["threads"])
    model = _load(folder, asked["gguf"])
    answer = _compare(model, request, asked["windows"]) | _weights(model, asked["weights"])
    packages = ("torch", "transformers", "compressed-tensors", "gptqmodel", "gguf")
    answer["versions"] = {name: found for name in packages if (found := _version(name)) is not None}
    (request / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _load(folder: Path, gguf: str | None) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    given: dict[str, Any] = {"local_files_only": True, "dtype": "auto"}
    if gguf is not None:
        import torch

        given |= {"gguf_file": gguf, "dtype": torch.float32}
    elif at_once(folder):
        from transformers import CompressedTensorsConfig

        given["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(folder, **given)
    model.train(False)
    return model


def at_once(folder: Path) -> bool:
    """Whether transformers reads the folder only if it dequantizes while it loads."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    groups = (config.get("quantization_config") or {}).get("config_groups", {}).values()
    return any(dequantized_at_once(one, config["dtype"]) for one in groups)


def dequantized_at_once(scheme: dict[str, Any], dtype: str) -> bool:
    """Whether transformers reads a scheme of compressed-tensors only if it dequantizes while it loads.

    compressed-tensors 0.20 compresses the model without weights, as transformers has it before it reads them, to zero
    points that are not packed, so that packed ones do not fit; and it decompresses fp4 and MX to bfloat16, whatever the
    model's dtype is.
    """
    form = scheme["format"]
    if form == "pack-quantized":
        return not scheme["weights"]["symmetric"]
    return (
        form in {"nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized"}
        and dtype != "bfloat16"
    )


def _compare(model: Any, request: Path, windows: int) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    kl, worst, largest, same, tokens = 0.0, 0.0, 0.0, 0, 0
    for index in range(windows):
        given = load_file(request / f"{index}.safetensors")
        with torch.inference_mode():
            own = model(input_ids=given["tokens"], use_cache=False).logits[0].float()
        run = given["logits"].float()
        for start in range(0, len(own), 64):
            mine, theirs = own[start : start + 64], run[start : start + 64]
            p, q = mine.double().log_softmax(1), theirs.double().log_softmax(1)
            divergence = (p.exp() * (p - q)).sum(1)
            kl += float(divergence.sum())
            worst = max(worst, float(divergence.max()))
            largest = max(largest, float((mine - theirs).abs().max()))
            same += int((mine.argmax(1) == theirs.argmax(1)).sum())
            tokens += len(mine)
    return {
        "kl": kl / tokens,
        "kl_max": worst,
        "largest_logit_difference": largest,
        "top1_agreement": same / tokens,
        "tokens": tokens,
        "windows": windows,
    }


def _weights(model: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """How many of the layers that can be looked into hold the very weights of the run; they do after a forward."""
    import torch

    modules = dict(model.named_modules())
    seen = equal = 0
    for name, (dtype, digest) in wanted.items():
        weight = getattr(modules.get(name), "weight", None)
        if isinstance(weight, torch.Tensor) and weight.is_floating_point():
            plain = weight.detach().to(getattr(torch, dtype)).cpu().contiguous()
            seen += 1
            equal += hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest() == digest
    return {"weights_compared": seen, "weights_identical": equal}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
