from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lm_eval.tasks import TaskManager

from lm_eval_tasks import TEST, TRAIN, choice_task, long_handle, save, write_tasks
from quantbench.calibration.base import CalibSet
from quantbench.core.errors import ConfigError, DataError, ModelError
from quantbench.datasets.overlap import overlap
from quantbench.metrics import metrics
from quantbench.metrics.metrics import check_items
from quantbench.models.handle import ModelHandle
from quantbench.tasks import task as tasks_module
from quantbench.tasks.lm_eval import library
from quantbench.tasks.lm_eval.item_set import LmEvalTestSet
from quantbench.tasks.lm_eval.task import LmEvalTask
from quantbench.tasks.task import Outcome, protocol_id

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("lm_eval") / "own")


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return long_handle()


def load(folder: Path, name: str, handle: ModelHandle, **options: Any) -> LmEvalTestSet:
    given: dict[str, Any] = {"task": name, "include_path": folder, "batch_size": 3} | options
    return LmEvalTask(**given).load(handle.tokenizer, "tokenizer")


def score(test: LmEvalTestSet, handle: ModelHandle) -> Outcome:
    return test.score(handle, "task", None, CPU, lambda _done, _all: None)


def alone(folder: Path, name: str, handle: ModelHandle, **options: Any) -> dict[str, Any]:
    """What lm-eval says by itself."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    live = HFLM(pretrained=handle.model, tokenizer=handle.tokenizer, batch_size=3)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with library.machine_described_once():
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model=live, tasks=[name], task_manager=manager, bootstrap_iters=0, **options
        )
    return found


@pytest.mark.parametrize(
    ("name", "shots"), [("own_choice", 0), ("own_choice", 2), ("own_text", 1), ("own_rolling", 0), ("own_group", 1)]
)
def test_metrics_equal_those_of_lm_eval_by_itself(folder: Path, handle: ModelHandle, name: str, shots: int) -> None:
    test = load(folder, name, handle, shots=shots)
    outcome = score(test, handle)
    theirs = alone(folder, name, handle, num_fewshot=shots)["results"][name]
    columns = next(iter(test.prepared.columns.values()))
    assert outcome.metrics == test.metrics
    compared = [one for one in test.metrics if columns[one].key in theirs]
    assert compared == (["acc"] if name == "own_group" else list(test.metrics))
    for one in compared:
        assert metrics.measure(one, outcome.items).value == pytest.approx(theirs[columns[one].key], abs=1e-9), one
    check_items(outcome.items, len(outcome.items), "items")


def test_items_of_choices(folder: Path, handle: ModelHandle) -> None:
    test = load(folder, "own_choice", handle)
    assert isinstance(test, tasks_module.TestSet)
    items = score(test, handle).items
    assert items["item"].tolist() == [f"own_choice/{i}" for i in range(TEST)]
    assert set(items["document"]) == {"own_choice"}
    rows = [json.loads(line) for line in (folder / "own_choice_test.jsonl").read_text().splitlines()]
    # One token a byte; lm-eval puts the space before an answer to it.
    sizes = [sum(1 + len(option) for option in row["options"]) for row in rows]
    assert items["n_tokens"].tolist() == items["n_bytes"].tolist() == sizes
    for row, acc, found in zip(rows, items["acc"], items["log_likelihoods"], strict=True):
        assert len(found) == len(row["options"])
        assert acc == float(max(range(len(found)), key=lambda i: found[i]) == row["gold"])
        text = f"Q: {row['question']}\nA: {row['options'][0]}"
        ids = handle.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            log_probs = handle.model(ids).logits[0].log_softmax(-1)
        answer = range(ids.shape[1] - 1 - len(row["options"][0]), ids.shape[1])
        assert found[0] == pytest.approx(sum(float(log_probs[i - 1, ids[0, i]]) for i in answer), rel=1e-4)


def test_a_group_is_one_task_with_the_items_of_all_its_parts(folder: Path, handle: ModelHandle) -> None:
    items = score(load(folder, "own_group", handle), handle).items
    assert items["item"].tolist() == [f"own_part0/{i}" for i in range(3)] + [f"own_part1/{i}" for i in range(9)]
    macro = score(load(folder, "own_macro", handle), handle)
    assert macro.metrics == ("macro_acc", "acc_norm")
    value = metrics.measure("macro_acc", macro.items).value
    assert value == pytest.approx(alone(folder, "own_macro", handle)["results"]["own_macro"]["acc,none"])
    assert value == pytest.approx(macro.items.groupby("document")["acc"].mean().mean())
    tag = score(load(folder, "own_tag", handle), handle)
    assert tag.items["acc"].tolist() == items["acc"].tolist()


def test_generated_answers_and_filters(folder: Path, handle: ModelHandle) -> None:
    test = load(folder, "own_text", handle)
    outcome = score(test, handle)
    assert test.metrics == ("exact_match", "exact_match_flexible_extract")
    responses = [json.loads(line) for line in outcome.attachments["responses.jsonl"].splitlines()]
    assert [one["item"] for one in responses] == outcome.items["item"].tolist()
    texts = [one["responses"][0] for one in responses]
    assert outcome.items["n_bytes"].tolist() == [len(text.encode()) for text in texts]
    assert any(texts)


def test_what_lm_eval_reports_is_kept_as_it_is(folder: Path, handle: ModelHandle) -> None:
    outcome = score(load(folder, "own_rolling", handle, limit=5), handle)
    kept, notes = (json.loads(outcome.attachments[name]) for name in ("lm_eval.json", "notes.json"))
    theirs = alone(folder, "own_rolling", handle, limit=5)
    assert kept["results"] == json.loads(json.dumps(theirs["results"]))
    assert kept["n-samples"]["own_rolling"] == {"original": TEST, "effective": 5}
    assert kept["configs"]["own_rolling"]["dataset_path"] == "json"
    assert kept["transformers_version"] == theirs["transformers_version"]
    assert "samples" not in kept
    assert any("byte_perplexity" in note for note in notes["notes"])
    assert notes["data"]["own_rolling"]["revision"] == "unverified"


def test_prompts_that_are_cut_are_counted(folder: Path, handle: ModelHandle) -> None:
    outcome = score(load(folder, "own_choice", handle, shots=2, max_length=64), handle)
    assert outcome.items["truncated"].all()
    assert "12 of 12 documents have prompts longer than 64 tokens" in outcome.attachments["notes.json"]
    assert not score(load(folder, "own_choice", handle), handle).items["truncated"].any()
    with pytest.raises(ModelError, match=r"an answer of \d+ tokens is longer than the 4 tokens"):
        score(load(folder, "own_choice", handle, max_length=4), handle)
    with pytest.raises(ConfigError, match="generates up to 6 tokens, but the model takes at most 6"):
        load(folder, "own_text", handle).check_length(6, "t")
    with pytest.raises(ConfigError, match="max_length=99, but the model takes at most 64"):
        load(folder, "own_choice", handle, max_length=99).check_length(64, "t")


def test_what_changes_the_protocol(folder: Path, handle: ModelHandle, tmp_path: Path) -> None:
    def protocol(place: Path = folder, **options: Any) -> str:
        return protocol_id(load(place, "own_choice", handle, **options))

    same = protocol()
    assert (
        same
        == protocol(shots=0)
        == protocol_id(
            LmEvalTask(task="own_choice", include_path=folder, batch_size=1).load(handle.tokenizer, "tokenizer")
        )
    )
    others = [protocol(shots=1), protocol(limit=3), protocol(max_length=300), protocol(shots=1, seed=5)]
    moved = write_tasks(tmp_path / "moved")
    assert protocol(moved) == same  # the data's place is no part of it
    config = yaml.safe_load((moved / "own_choice.yaml").read_text())
    for number, change in enumerate(
        ({"metadata": {"version": 2.0}}, {"description": "Answer."}, {"metric_list": [{"metric": "acc"}]})
    ):
        changed = tmp_path / f"changed{number}"
        changed.mkdir()
        save(changed, config | change)
        others.append(protocol(changed))
    rows = (moved / "own_choice_test.jsonl").read_text().splitlines()
    (moved / "own_choice_test.jsonl").write_text("\n".join([*rows[1:], rows[0]]) + "\n")
    others.append(protocol(moved))
    assert len({same, *others}) == 1 + len(others)


def test_documents_are_those_that_are_tested_without_worked_examples(folder: Path, handle: ModelHandle) -> None:
    test = load(folder, "own_choice", handle, shots=2)
    first = json.loads((folder / "own_choice_test.jsonl").read_text().splitlines()[0])
    assert test.documents[0] == f"Q: {first['question']}\nA: {first['options'][0]}"
    assert len(test.documents) == len(test.token_rows) == TEST
    assert handle.tokenizer.decode(test.token_rows[0]) == test.documents[0]
    assert test.n_positions > 2 * sum(map(len, test.token_rows))  # with worked examples, for each answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": TRAIN + 1}, r"5 worked examples are asked for, but own_choice has 4 to draw from; use shots=4"),
        ({"include_path": Path("nowhere")}, r"include_path=nowhere: no such folder"),
    ],
)
def test_bad_options(folder: Path, handle: ModelHandle, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        load(folder, "own_choice", handle, **options)


def test_a_name_that_nobody_knows_is_answered_with_the_nearest_of_both_sides(
    folder: Path, handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own_choices", "own_choice"):
        save(tmp_path, choice_task(tmp_path, name, doc_to_text="theirs"))
    theirs = TaskManager(include_path=tmp_path, include_defaults=False)
    monkeypatch.setattr(library, "defaults", lambda: theirs)
    with pytest.raises(ConfigError, match=r"no task, tag or group of that name. Did you mean own_choices, own_choice"):
        load(folder, "own_choicess", handle)
    assert load(folder, "own_choices", handle).documents[0].startswith("theirs")
    joint = library.manager_for("own_choices", folder)
    assert joint.task_index["own_choice"].yaml_path == folder / "own_choice.yaml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unsafe_code": True}, "executes code that the model writes"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "script from the hub|cannot load it"),
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "lm-eval cannot load it.*nowhere.jsonl"),
        ({"doc_to_text": "{{ question | nofilter }}"}, "cannot load it|cannot render the prompts"),
        ({"metric_list": [{"metric": "acc", "aggregation": "median"}]}, "no metric in common that is a mean"),
        ({"num_fewshot": 0, "asked": 2}, "shots=2, but lm-eval defines own_bad without worked examples; use shots=0"),
        ({"dataset_path": "EleutherAI/logiqa", "dataset_kwargs": {}}, "not loadable today: EleutherAI/logiqa is a"),
    ],
)
def test_tasks_that_are_refused(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    asked = change.get("asked")
    save(tmp_path, choice_task(tmp_path, "own_bad") | {k: v for k, v in change.items() if k != "asked"})
    task = LmEvalTask(task="own_bad", include_path=tmp_path, shots=asked)
    with pytest.raises((ConfigError, DataError), match=message):
        task.load(handle.tokenizer, "tokenizer")


def test_worked_examples_from_the_tested_split_are_said_to_be(handle: ModelHandle, tmp_path: Path) -> None:
    save(tmp_path, {k: v for k, v in choice_task(tmp_path, "own_test").items() if k != "training_split"})
    test = load(tmp_path, "own_test", handle, shots=2)
    assert test.protocol_values["subtasks"]["own_test"]["shots_from"].startswith("the tested split")
    assert "worked examples come from the tested split" in score(test, handle).attachments["notes.json"]
    with pytest.raises(DataError, match=rf"has {TEST - 1} besides the question itself; use shots={TEST - 1}"):
        load(tmp_path, "own_test", handle, shots=TEST)


def test_data_is_fetched_beforehand(folder: Path) -> None:
    said = LmEvalTask(task="own_group", include_path=folder).prepare()
    assert said.startswith("own_group: json, 12 documents")


@pytest.mark.parametrize("name", ["own_choice", "own_text"])
def test_prompts_go_through_the_chat_template_if_they_are_to(folder: Path, name: str) -> None:
    handle = long_handle()
    with pytest.raises(ConfigError, match="chat=true: the model's tokenizer has no chat template"):
        load(folder, name, handle, chat=True)
    handle.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{% if add_generation_prompt %}[me|{% endif %}"
    )
    test, plain = load(folder, name, handle, chat=True, shots=1), load(folder, name, handle, shots=1)
    assert protocol_id(test) != protocol_id(plain)
    assert "chat_template" in test.protocol_values
    assert all(prompt.startswith("[user|Q: ") and prompt.count("[user|") == 2 for prompt in test.prepared.prompts)
    assert test.contents == plain.contents
    outcome = score(test, handle)  # lm-eval asks the same, or it would be an error
    assert len(outcome.items) == TEST


@pytest.mark.parametrize("name", ["own_choice", "own_text"])
def test_items_take_part_in_the_check_of_overlap_by_their_own_texts(
    folder: Path, handle: ModelHandle, name: str
) -> None:
    test = load(folder, name, handle, shots=0)
    rows = [json.loads(line) for line in (folder / f"{name}_test.jsonl").read_text().splitlines()]
    questions = list(dict.fromkeys(row["question"] for row in rows))
    assert list(dict.fromkeys(test.contents)) == questions
    assert len(test.contents) == TEST
    seen = [question.upper().replace("?", " ?!") for question in questions[:3]]
    calib = CalibSet(torch.zeros(1, 8, dtype=torch.int64), "c", "train", "r", "f", (), 0, 0, contents=tuple(seen))
    found = overlap(calib, test.token_rows, test.documents, test.contents)
    assert found.shared_items == 3
    with pytest.raises(DataError, match=f"calib=mine and task {name} overlap: 3 items are in both"):
        found.check("mine", name)
