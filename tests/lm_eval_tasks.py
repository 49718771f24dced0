"""Task files of a user's own, with data made here: nothing is downloaded."""

from __future__ import annotations

import json
import random
from pathlib import Path

import yaml
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from quantbench.models.handle import ModelHandle
from tiny import tiny, tiny_handle

TRAIN, TEST = 4, 12


def long_llama(**options: object) -> PreTrainedModel:
    """A tiny Llama that takes prompts of real tasks."""
    return tiny(LlamaConfig, LlamaForCausalLM, max_position_embeddings=4096, **options)


def long_handle(**options: object) -> ModelHandle:
    """A handle on it."""
    return tiny_handle(long_llama(**options))


def write_rows(folder: Path, name: str, n: int, seed: int) -> str:
    words = random.Random(seed)
    rows = [
        {
            "question": f"Which of these is {' '.join(words.choices(['red', 'green', 'small', 'old', 'round'], k=4))}?",
            "options": words.sample(["a brick", "grass", "an ant", "the moon", "rust"], words.choice([2, 3])),
            "gold": words.randrange(2),
        }
        for _ in range(n)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / f"{name}.jsonl")


def choice_task(folder: Path, name: str, n: int = TEST, seed: int = 0, **options: object) -> dict[str, object]:
    files = {
        "train": write_rows(folder, f"{name}_train", TRAIN, seed + 1),
        "test": write_rows(folder, f"{name}_test", n, seed + 2),
    }
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 1.0},
        **options,
    }


def save(folder: Path, config: dict[str, object]) -> None:
    name = str(config.get("task") if isinstance(config.get("task"), str) else config["group"])
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def write_tasks(folder: Path) -> Path:
    """Choices, a generation with two filters, a text, a group by size, one without weights, and a tag."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, choice_task(folder, "own_choice"))
    for index, size in enumerate((3, 9)):
        save(folder, choice_task(folder, f"own_part{index}", size, 10 * index, tag="own_tag"))
    filters = [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        for name, pattern in (("strict", "A: (\\w+)"), ("flexible-extract", "(.)"))
    ]
    save(
        folder,
        choice_task(
            folder,
            "own_text",
            output_type="generate_until",
            doc_to_choice=None,
            doc_to_target="{{options[0][0]}}",
            generation_kwargs={"until": ["\n"], "max_gen_toks": 6},
            filter_list=filters,
            metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        ),
    )
    save(
        folder,
        choice_task(
            folder,
            "own_rolling",
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_choice=None,
            doc_to_target="{{question}} {{options[0]}}.",
            metric_list=[{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
        ),
    )
    for name, by_size in (("own_group", True), ("own_macro", False)):
        rules = [{"metric": "acc", "weight_by_size": by_size}]
        save(folder, {"group": name, "task": ["own_part0", "own_part1"], "aggregate_metric_list": rules})
    return folder
