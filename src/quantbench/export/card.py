"""The model card of an export: what it is, its scores on every distribution, and how to make it again.

Its metadata are those of the hub: base_model, license, datasets, and model-index, the evaluation results
(https://huggingface.co/docs/hub/model-cards). A licence that the hub has no identifier for is "other", by its name.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from quantbench.config.catalogue import Catalogue
from quantbench.config.folders import Folders
from quantbench.core.origin import relation
from quantbench.core.version import __version__
from quantbench.export.proof import Proof
from quantbench.models.loading import HubModel, ModelSource
from quantbench.report.settings import settings
from quantbench.store.records import RunRecord, Score

USE = {
    "dense": "vllm serve {name}",
    "compressed-tensors": "vllm serve {name}",
    "gptq": "vllm serve {name}",
    "awq": "vllm serve {name}",
    "gguf": "llama-server -m {name}/model.gguf",
}
"""What serves a folder, by its format."""

HUB_LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-sa-3.0", "llama2", "llama3.1", "gemma"}
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Described:
    """What a card tells of: the run, its scores, its model, the format, the folder's name, the run's overrides."""

    record: RunRecord
    scores: tuple[Score, ...]
    source: ModelSource
    to: str
    name: str
    overrides: Sequence[str] | None

    @property
    def base(self) -> str:
        """The base model: its id on the hub, else its name here."""
        return self.source.id if isinstance(self.source, HubModel) else self.source.name

    @property
    def licence(self) -> str:
        """The base model's licence, as its option file says."""
        option = self.record.choices.get("model", "")
        catalogue = Catalogue(Folders())
        about = catalogue.option("model", option).get("about") if option in catalogue.files("model") else None
        return str((about or {}).get("licence") or NOT_KNOWN)


def card(described: Described, proof: Proof | None, notes: Sequence[str]) -> str:
    """README.md: metadata between dashes, then Markdown."""
    data = ModelCardData(**_metadata(described))
    sections = (_head(described, proof), _proof(proof, notes), _scores(described), _origin(described))
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(line for section in sections for line in [*section, ""])


def _metadata(described: Described) -> dict[str, Any]:
    record, licence = described.record, described.licence
    found: dict[str, Any] = {
        "model_name": described.name,
        "tags": ["quantbench", described.to, *([record.choices["quantizer"]] if "quantizer" in record.choices else [])],
        "library_name": "gguf" if described.to == "gguf" else "transformers",
        "pipeline_tag": "text-generation",
        "eval_results": _results(described.scores),
    }
    if isinstance(described.source, HubModel):
        found |= {"base_model": described.base, "base_model_relation": "quantized"}
    identifier = licence.lower()
    found["license"] = identifier if identifier in HUB_LICENCES else "other"
    if found["license"] == "other":
        found["license_name"] = licence
    if record.origins:
        found["datasets"] = [origin.name for origin in record.origins]
    return found


def _results(scores: Sequence[Score]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.origin.name,
            dataset_name=score.task,
            dataset_args={"protocol": score.protocol},
            metric_type=metric.name,
            metric_value=metric.value,
        )
        for score in scores
        for metric in score.metrics
    ]


def _head(described: Described, proof: Proof | None) -> Iterator[str]:
    record = described.record
    bits = record.effective_bits
    yield f"# {described.name}"
    yield ""
    yield (
        f"{described.base}, quantized with {record.choices.get('quantizer', 'a recipe')}"
        f"{'' if bits is None else f' to {bits:.3g} bits per weight, everything stored counted'}, and exported as "
        f"{described.to} by quantbench {__version__} from run `{record.run_id}`."
    )
    if proof is not None and not proof.equivalent:
        yield ""
        yield "**Not equivalent**: what reads these files does not compute what the run computed. Do not use them."
    yield ""
    yield f"To serve it: `{USE[described.to].format(name=described.name)}`."
    yield ""
    yield f"Recipe: {settings(record.config.get('quantizer', {})) or 'full precision'}."


def _proof(proof: Proof | None, notes: Sequence[str]) -> Iterator[str]:
    yield "## Is it the model that was scored?"
    yield ""
    if proof is None:
        yield "**Not proved**: it was exported with --without-proof, and never read again."
    else:
        read = ", ".join(f"{name} {version}" for name, version in proof.versions.items())
        yield (
            f"Read again in a process of its own ({read}) and compared with the run on {proof.windows} windows, "
            f"{proof.tokens} tokens of {proof.text}:"
        )
        yield ""
        logit = proof.tolerance["logit"]
        yield "| measure | found | allowed |"
        yield "|---|---|---|"
        yield f"| mean KL(export, run), nats per token | {proof.kl:.3g} | {proof.tolerance['kl']:g} |"
        yield f"| largest KL of a token | {proof.kl_max:.3g} | |"
        yield (
            f"| largest difference of a logit | {proof.largest_logit_difference:.3g} | "
            f"{'' if logit is None else f'{logit:g}'} |"
        )
        yield f"| same most likely token | {proof.top1_agreement:.2%} | |"
        yield f"| weights identical to the bit | {proof.weights_identical} of {proof.weights_compared} layers | |"
    yield from ("", *(f"* {note}" for note in notes))


def _scores(described: Described) -> Iterator[str]:
    yield "## Scores of the run"
    yield ""
    if not described.scores:
        yield "None are stored."
        return
    yield "| test | relation to what it was calibrated on | metric | value | standard error | items | protocol |"
    yield "|---|---|---|---|---|---|---|"
    for score in described.scores:
        near = relation(described.record.origins, score.origin) or "no calibration"
        for metric in score.metrics:
            error = "" if metric.stderr is None else f"{metric.stderr:.2g}"
            values = (score.task, near, metric.name, f"{metric.value:.6g}", error, score.n_items, score.protocol[:12])
            yield f"| {' | '.join(map(str, values))} |"
    yield ""
    yield "Divergences are from the full-precision model. Scores under different protocols are never to be compared."


def _origin(described: Described) -> Iterator[str]:
    record = described.record
    yield "## Where it comes from"
    yield ""
    yield f"* Base model: {described.base}; licence: {described.licence}"
    for name, value in sorted(record.fingerprints.items()):
        yield f"* Fingerprint of {name.replace('_', ' ')}: `{value}`"
    for origin in record.origins:
        yield (
            f"* Calibrated on {origin.name} ({origin.domain}, language {origin.language}); licence: "
            f"{origin.licence or NOT_KNOWN}"
        )
    if record.calibration:
        yield f"* Calibration: {_told(record.calibration)}"
    else:
        yield "* Calibration: none, the recipe reads no data"
    yield f"* Made with: {_told({k: v for k, v in record.environment.items() if isinstance(v, str)})}"
    yield ""
    yield "```sh"
    if described.overrides is not None:
        yield shlex.join(["python", "-m", "quantbench", *described.overrides])
    yield shlex.join(["quantbench", "export", record.run_id, "--to", described.to, described.name])
    yield "```"


def _told(values: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in values.items() if isinstance(v, str | int | float) and v != ""}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plain.items())
