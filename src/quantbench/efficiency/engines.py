"""The process that is measured: it loads an exported model in an engine, and times prompts and single tokens.

    python engines.py FOLDER REQUEST

It imports what an engine's environment has (torch and transformers, or xllamacpp), nothing of this package, so that the
interpreter may be another one. REQUEST is a folder with request.json, the fields of
`quantbench.efficiency.workload.Workload` and "engine", "gguf"; the answer is written there as answer.json.
"""

import importlib
import importlib.util
import itertools
import json
import resource
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

Asked = dict[str, Any]
PACKAGES = ("torch", "transformers", "compressed-tensors", "gptqmodel", "gguf", "xllamacpp")


def main(folder: Path, request: Path) -> None:
    """Load, warm up, repeat, write the answer."""
    asked: Asked = json.loads((request / "request.json").read_text(encoding="utf-8"))
    imported = _resident()
    answer = ENGINES[asked["engine"]](folder, asked)
    answer["imported_bytes"] = imported
    answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    answer["versions"] = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    (request / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def transformers(folder: Path, asked: Asked) -> Asked:
    """By transformers: a prompt of all sequences at once, then tokens of which each has the seconds it took."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(asked["threads"])
    began = time.perf_counter()
    model = _loaded(folder, asked, torch)
    loading = time.perf_counter() - began
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, vocabulary, (asked["batch"], asked["context"]), generator=draw).to(device)

    def synchronized() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def generate() -> tuple[float, list[float], Any]:
        started = synchronized()
        output = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        seconds = [synchronized()]
        for _ in range(asked["decode"]):
            token = output.logits[:, -1:].argmax(-1)
            output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
            seconds.append(synchronized())
        steps = [later - sooner for sooner, later in itertools.pairwise(seconds)]
        return seconds[0] - started, steps, output.past_key_values

    with torch.inference_mode():
        found = _repeated(asked, generate, _energy_meters(device.type))
    tensors = [*model.parameters(), *model.buffers()]
    found["weights_bytes"] = sum(one.numel() * one.element_size() for one in {id(one): one for one in tensors}.values())
    found["cache_bytes"] = _cache_bytes(found.pop("last"))
    found["loading_seconds"], found["resident_bytes"] = loading, _resident()
    if device.type == "cuda":
        found["device_peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found | {"device": str(device)}


def llama_cpp(folder: Path, asked: Asked) -> Asked:
    """By llama.cpp: one sequence; of the tokens of a repetition only the mean of their seconds is told."""
    xllamacpp = importlib.import_module("xllamacpp")
    given = xllamacpp.CommonParams()
    given.model.path = str(folder / asked["gguf"])
    given.n_ctx, given.n_parallel = asked["context"] + asked["decode"] + 8, 1
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = asked["threads"]
    began = time.perf_counter()
    server = xllamacpp.Server(given)
    loading = time.perf_counter() - began
    body = {"prompt": _prompt(asked), "n_predict": asked["decode"] + 1, "cache_prompt": False, "ignore_eos": True}
    address = server.listening_address + "/completion"
    header = {"Content-Type": "application/json"}

    def generate() -> tuple[float, list[float], None]:
        request = urllib.request.Request(address, json.dumps(body).encode(), header)
        with urllib.request.urlopen(request) as answered:
            timings = json.load(answered)["timings"]
        if timings["prompt_n"] != asked["context"]:
            raise SystemExit(f"llama.cpp read {timings['prompt_n']} of {asked['context']} tokens of the prompt")
        return timings["prompt_ms"] / 1000, [timings["predicted_ms"] / timings["predicted_n"] / 1000], None

    found = _repeated(asked, generate, _energy_meters("cpu"))
    found.pop("last")
    return found | {"loading_seconds": loading, "resident_bytes": _resident(), "device": "cpu"}


def _prompt(asked: Asked) -> list[int]:
    """Ids spread over the first thousand of the vocabulary, special ones left out."""
    return [100 + 37 * index % 900 for index in range(asked["context"])]


ENGINES: dict[str, Callable[[Path, Asked], Asked]] = {"transformers": transformers, "llama.cpp": llama_cpp}


def _loaded(folder: Path, asked: Asked, torch: Any) -> Any:
    library = importlib.import_module("transformers")
    given: Asked = {"local_files_only": True, "dtype": "auto"}
    if asked["gguf"] is not None:
        given |= {"gguf_file": asked["gguf"], "dtype": torch.float32}
    elif asked["at_once"]:
        given["quantization_config"] = library.CompressedTensorsConfig(dequantize=True)
    model = library.AutoModelForCausalLM.from_pretrained(folder, **given)
    model.train(False)
    if asked["device"] != "cpu":
        model.to(asked["device"])
    return model


def _repeated(asked: Asked, generate: Callable[[], tuple[float, list[float], Any]], meters: list["Meter"]) -> Asked:
    for _ in range(asked["warm_up"]):
        generate()
    prefill, decode, last = list[float](), list[float](), None
    with _metered(meters) as joules:
        for _ in range(asked["repeat"]):
            seconds, steps, last = generate()
            prefill.append(seconds)
            decode += steps
    return {"prefill_seconds": prefill, "decode_seconds": decode, "joules": joules or None, "last": last}


class Meter:
    """Joules that a part of the machine has used since it was started, from a function that gives them."""

    def __init__(self, name: str, read: Callable[[], float], wraps_at: float | None = None) -> None:
        self.name, self._read, self._wraps_at = name, read, wraps_at
        self._start = 0.0

    def start(self) -> None:
        """From now on."""
        self._start = self._read()

    def joules(self) -> float:
        """Since the start; a counter that began anew in between is told by its being less."""
        used = self._read() - self._start
        return used + self._wraps_at if used < 0 and self._wraps_at is not None else used


@contextmanager
def _metered(meters: list[Meter]) -> Iterator[dict[str, float]]:
    found: dict[str, float] = {}
    for meter in meters:
        meter.start()
    yield found
    found.update({meter.name: meter.joules() for meter in meters})


def _energy_meters(device: str, powercap: Path = Path("/sys/class/powercap")) -> list[Meter]:
    """What tells its energy here: packages of processors (RAPL), and the first GPU (NVML) where it is measured on."""
    found = []
    for zone in sorted(powercap.glob("intel-rapl:[0-9]*")):
        counter = zone / "energy_uj"
        try:
            counter.read_text(encoding="ascii")
            limit = int((zone / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
        except (OSError, ValueError):
            continue
        if zone.name.count(":") == 1:
            found.append(Meter(zone.name, lambda counter=counter: int(counter.read_text("ascii")) / 1e6, limit))  # type: ignore[misc]
    if device == "cuda" and importlib.util.find_spec("pynvml") is not None:
        nvml = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError:
            return found  # this GPU has no such counter; what is told names those that were read
        found.append(Meter("gpu", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000))
    return found


def _cache_bytes(cache: Any) -> int | None:
    """Of the keys and values that a cache of transformers holds; None for another kind of cache."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return None
    tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(int(one.numel()) * int(one.element_size()) for one in tensors if one is not None)


def _resident() -> int | None:
    """Bytes of this process that lie in memory, where the system tells."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text(encoding="ascii").split()[1]) if statm.exists() else None
    return None if pages is None else pages * int(resource.getpagesize())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
