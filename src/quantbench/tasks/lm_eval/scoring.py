"""Scoring by lm-eval on the live model: its results, our items, and the check that both say the same."""

from __future__ import annotations

import json
import logging

import lm_eval
import torch
from lm_eval.utils import handle_non_serializable

from quantbench.core.errors import DataError, QuantbenchError
from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.models.head import head_in_float32
from quantbench.tasks.lm_eval.attachments import data_of, notes_of, responses_of
from quantbench.tasks.lm_eval.documents import failing
from quantbench.tasks.lm_eval.items import Samples, items_of, of_filter
from quantbench.tasks.lm_eval.library import OTHER_SEED, RANDOM_SEED, as_by_itself, machine_described_once
from quantbench.tasks.lm_eval.model import LiveModel
from quantbench.tasks.lm_eval.prepared import Prepared
from quantbench.tasks.lm_eval.reported import check_reported
from quantbench.tasks.lm_eval.requests import prompts_hash
from quantbench.tasks.task import Outcome

log = logging.getLogger("quantbench")


def score(
    prepared: Prepared, handle: ModelHandle, task: str, device: torch.device, progress: ProgressCallback
) -> Outcome:
    """Have lm-eval evaluate the model as it stands.

    Raises DataError if it asks something else than when the data were loaded, ModelError if a log-likelihood is not
    finite, and if a metric of ours is not what lm-eval reports.
    """
    options = prepared.options
    with (
        torch.no_grad(),
        handle.on_device(device) as model,
        head_in_float32(model),
        as_by_itself(),
        machine_described_once(),
    ):
        live = LiveModel(
            handle,
            model,
            prepared.tokenizer,
            options.batch_size,
            options.max_length,
            progress,
            n_requests=prepared.n_prompts,
        )
        try:
            results = lm_eval.simple_evaluate(
                model=live,
                tasks=[options.task],
                num_fewshot=options.shots,
                limit=options.limit,
                apply_chat_template=options.chat,
                bootstrap_iters=0,
                task_manager=prepared.loaded.manager,
                random_seed=RANDOM_SEED,
                numpy_random_seed=OTHER_SEED,
                torch_random_seed=OTHER_SEED,
                fewshot_random_seed=options.seed,
            )
        except (QuantbenchError, RuntimeError, MemoryError):  # of the model and its device
            raise
        except Exception as error:  # templates and code of each task
            raise failing(error, options.task, "score it") from error
    assert results is not None
    samples: Samples = results.pop("samples")
    _check_prompts(prepared, task, samples)
    items = items_of(prepared, task, samples, live)
    kept, notes = check_reported(prepared, task, items, results)
    notes += notes_of(prepared, live, items)
    for note in notes:
        log.info("  %s: %s", task, note)
    attached = {"lm_eval.json": json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)}
    attached["notes.json"] = json.dumps(
        {"notes": notes, "data": data_of(prepared.loaded)}, indent=1, ensure_ascii=False
    )
    if prepared.generates:
        attached["responses.jsonl"] = "".join(responses_of(samples))
    return Outcome(items, attached, tuple(kept))


def _check_prompts(prepared: Prepared, task: str, samples: Samples) -> None:
    asked = {name: {one["doc_id"]: one["arguments"] for one in of_filter(found)} for name, found in samples.items()}
    if prompts_hash(asked) != prepared.fingerprint:
        raise DataError(
            f"task {task}: lm-eval asked something else than when its data were loaded: {prepared.options.task} does "
            "not make the same prompts every time, so that no two models could be compared on it"
        )
