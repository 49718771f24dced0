"""What is finished of a block is not run again, and nothing depends on whether it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantbench.models.groups import GroupFinder
from quantbench.pipeline import capture, replay
from quantbench.pipeline.finished import FinishedParts
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import FAMILIES, VOCABULARY, tiny_deepseek_v3, tiny_handle

SEQUENCES = 4
GROUPS = "quantizer.weight.group_size=16"
KEEP = "quantizer.policy.keep=['.*(q_proj|query_key_value|fc1)']"


def data() -> Tensor:
    return torch.randint(0, VOCABULARY, (SEQUENCES, 24), generator=torch.Generator().manual_seed(1))


def fingerprint(model: PreTrainedModel, *recipe: str) -> str:
    chosen = make_recipe(*recipe)
    handle = tiny_handle(model)
    return quantize_model(handle, chosen, data(), torch.device("cpu"), lambda _done, _all: None).artifact.fingerprint()


CASES = [
    *((family, ("gptq", GROUPS)) for family in [*FAMILIES, "deepseek_v3"]),
    *((family, ("gptq", GROUPS, KEEP)) for family in ("llama", "opt", "gpt_neox", "phi")),
    *((family, ("gptq_awq", GROUPS)) for family in ("llama", "opt", "falcon", "mixtral")),
    ("llama", ("quarot",)),
]


@pytest.mark.parametrize(("family", "recipe"), CASES)
def test_weights_are_the_same_to_the_bit(family: str, recipe: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    make = FAMILIES.get(family, tiny_deepseek_v3)
    kept = fingerprint(make(), *recipe)
    one_sequence = data()[0].numel() * 32 * 4
    for limit in (0, 2 * one_sequence):
        monkeypatch.setattr(FinishedParts, "limit", limit)
        assert fingerprint(make(), *recipe) == kept


@pytest.mark.parametrize("family", [*FAMILIES, "deepseek_v3"])
def test_weights_do_not_depend_on_how_many_tokens_show_how_a_block_is_built(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, found = FAMILIES.get(family, tiny_deepseek_v3), set[str]()
    for start in (8, data().shape[1]):
        monkeypatch.setattr(capture, "START", start)
        monkeypatch.setattr(replay, "START", start)
        found.add(fingerprint(make(), "gptq_awq", GROUPS))
    assert len(found) == 1


@pytest.mark.parametrize(("limit", "times"), [(None, SEQUENCES), (0, None)])
def test_every_weight_is_run_once_for_each_sequence(
    limit: int | None, times: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FAMILIES["llama"]()
    names = {module: name for name, module in model.named_modules() if "layers.1" in name}
    runs: Counter[str] = Counter()
    forward = nn.Linear.forward

    def counted(module: nn.Linear, x: Tensor) -> Any:
        runs[names.get(module, "other")] += 1
        return forward(module, x)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    if limit is not None:
        monkeypatch.setattr(FinishedParts, "limit", limit)
    fingerprint(model, "gptq", GROUPS, "quantizer.policy.lm_head=true")  # which reads what the last block writes
    del runs["other"]
    watched = 1  # the forward that finds the groups
    if times is not None:
        assert set(runs.values()) == {watched + times}
    else:  # before the outputs, groups that come later each run what lies before them
        assert runs["model.layers.1.self_attn.q_proj"] == watched + 4 * SEQUENCES
        assert runs["model.layers.1.mlp.down_proj"] == watched + SEQUENCES


def test_attention_and_normalizations_are_run_once_for_each_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, runs = FinishedParts.answer, Counter[tuple[str, int]]()

    def counted(parts: FinishedParts, asked: Any, index: int, run: Any, /, *args: Any, **kwargs: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            runs[asked if isinstance(asked, str) else type(asked).__name__, index] += 1
            return run(*args, **kwargs)

        return answer(parts, asked, index, noted, *args, **kwargs)

    monkeypatch.setattr(FinishedParts, "answer", counted)
    model = FAMILIES["llama"]()
    fingerprint(model, "gptq", GROUPS)
    blocks = model.config.num_hidden_layers
    sequences = range(SEQUENCES)
    assert runs == {("attention", i): blocks for i in sequences} | {("LlamaRMSNorm", i): 2 * blocks for i in sequences}


def test_an_answer_is_kept_for_the_same_arguments_as_long_as_nobody_writes_to_it() -> None:
    parts, runs = FinishedParts("block", nn.Linear(2, 2)), Counter[int]()
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])

    def times(x: Tensor, by: float) -> Tensor:
        runs[0] += 1
        return x * by

    def ask(value: Tensor, index: int = 0, by: float = 2.0) -> Tensor:
        found = parts.answer("times", index, times, value, by=by)
        assert isinstance(found, Tensor)
        return found

    asked: dict[str, Any]
    for asked, expected, run in (
        ({"value": x}, [2.0, 4.0], 1),
        ({"value": x}, [2.0, 4.0], 1),
        ({"value": x.clone()}, [2.0, 4.0], 1),
        ({"value": y}, [2.0, 6.0], 2),
        ({"value": y, "by": 3.0}, [3.0, 9.0], 3),
        ({"value": y, "by": 4.0, "index": 1}, [4.0, 12.0], 4),
        ({"value": y, "by": 3.0}, [3.0, 9.0], 4),
    ):
        assert ask(**asked).tolist() == expected
        assert runs[0] == run
    assert parts.size == 2 * 2 * y.numel() * y.element_size()  # of both sequences: what was asked, what came of it
    ask(y, by=3.0).zero_()  # as a model that writes to what it was given
    assert ask(y, by=3.0).tolist() == [3.0, 9.0]
    assert runs[0] == 5
    y[0] = 2.0  # the arguments that are kept are no longer those that were asked
    assert ask(y, by=3.0).tolist() == [6.0, 9.0]
    assert parts.answer("other", 0, times, y, by=3.0).tolist() == [6.0, 9.0]
    assert runs[0] == 7
    with torch.inference_mode():  # tensors that do not count their changes
        uncounted = y.clone()
        assert ask(uncounted, by=5.0).tolist() == ask(uncounted, by=5.0).tolist() == [10.0, 15.0]
    assert runs[0] == 9
    parts.forget()
    assert parts.size == 0


def test_no_more_is_kept_than_the_limit_and_what_was_added_to_in_its_place_is_run_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            written = self.first(x)
            written += 1
            result: Tensor = self.second(written)
            return result

    block, x = Block(), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = block(x)
        with GroupFinder("block", block) as finder:
            block(x)
        one = x.numel() * x.element_size()
        monkeypatch.setattr(FinishedParts, "limit", 2 * one)
        parts = FinishedParts("block", block)
        parts.finish(finder.groups()[:1])
        for index, kept in ((0, 1), (1, 2), (2, 2), (0, 2)):
            with parts.sequence(index):
                assert torch.equal(block(x), expected)
            assert parts.size == kept * one
        parts.forget()
        assert parts.size == 0
        wrapper = block.first.forward
        block.first.forward = wrapper  # type: ignore[method-assign]
        parts.finish(finder.groups()[:1])
        with parts.sequence(0):
            assert torch.equal(block(x), expected)
        assert block.first.__dict__["forward"] == wrapper
