"""Every command line of the pages of before composes, or is answered with its new form, which composes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import pytest

from quantbench.config.catalogue import Catalogue
from quantbench.config.cell import Cell
from quantbench.config.composer import cells_of, offline_composer
from quantbench.config.folders import Folders
from quantbench.core.errors import ConfigError

STILL = """
quantizer=gptq calib=wiki_sample
quantizer=hqq quantizer.rounding.iterations=5
-m quantizer=gptq,awq calib=c4,wiki
-m quantizer=rtn,gptq quantizer.weight.bits=4,3 quantizer.weight.group_size=64
quantizer=gptq quantizer.weight.group_size=channel
model=local model.path=FOLDER quantizer=awq
-m quantizer=gptq,awq scale=paper dry_run=true
-m quantizer=gptq calib=mnli,anli eval=boss_nli
quantizer=awq calib=ceval_hm eval=exams_fewshot
quantizer=gptq eval=lm_eval 'eval.names=[piqa,mmlu]'
quantizer=gptq eval=lm_eval 'eval.names=[piqa,boolq,mmlu]' eval.shots=0
calib=mix calib.parts.wiki=0.5 calib.parts.c4=0.5
-m quantizer=gptq,awq calib=c4,wiki cluster=slurm cluster.partition=gpu cluster.gpus=1
-m quantizer=gptq,awq calib=c4,wiki cluster=local cluster.workers=4
quantizer=gptq format@quantizer.weight=nvfp4
quantizer=awq +activation@quantizer.activation=int8_token
quantizer=rtn +kv_cache@quantizer.kv_cache=kivi2 quantizer.policy.keep_first_blocks=1
model=local model.path=FOLDER model.dtype=bfloat16 quantizer=gptq
-m quantizer=gptq,awq quantizer.weight.bits=4,3 quantizer.weight.group_size=32,128 calib=wiki_sample
model=qwen2_5_0_5b
-m model=qwen2_5_0_5b quantizer=gptq,awq calib=wiki_sample,code_sample scale.windows=64 calib.n=128 scale.window=2048
-m calib=wiki_sample calib.draw=0,1,2,3,4
calib=tnews calib.allow_short=true
calib=shuffled calib.unit=sentences
eval=ppl
eval=exams_zeroshot
"""

MOVED = [
    ("calib=local calib.source.path=mytext.txt", "calib=local calib.path=mytext.txt"),
    ("-m calib=local calib.source.path=a.txt,b.txt", "-m calib=local calib.path=a.txt,b.txt"),
    ("-m calib=local calib.source.test_path=b.txt", "-m calib=local calib.path=a.txt calib.test_path=b.txt"),
    ("quantizer=signround quantizer.rounding.iterations=50", "quantizer=signround quantizer.rounding.steps=50"),
    ("-m quantizer=gptq,signround quantizer.rounding.iterations=5", "quantizer=signround quantizer.rounding.steps=5"),
    ("calib=local calib.source.column=body", "calib=local calib.path=mytext.jsonl calib.text=body"),
    ("calib=local calib.source.name=mine", "calib=local calib.path=mytext.jsonl calib.name=mine"),
    ("calib=local calib.source.about.language=zh", "calib=local calib.path=a.txt calib.language=zh"),
    ("calib=local text@calib.source=alpaca", "calib=alpaca"),
    ("calib=shuffled text@calib.source=c4", "calib=shuffled calib.of=c4"),
    ("calib=mix +calib@calib.sets.mine=ptb +calib.parts.mine=0.5", "calib=mix calib.parts.ptb=0.5 calib.parts.c4=0.5"),
    ("calib=sst2 sampler@calib.sampler=one_item", "calib=sst2 calib.sampler=one_item"),
    ("calib=sst2 calib.source.labels=false", "calib=sst2 calib.with_answers=false"),
    ("calib=ultrachat render@calib.source.render=model_chat", "calib=ultrachat calib.render=model_chat"),
    ("calib=ceval_hm template@calib.source.template=exam_en", "calib=ceval_hm calib.template=exam_en"),
    ("calib=ceval_hm calib.source.data.train_on=dev", "calib=ceval_hm calib.train=dev"),
    ("calib=ceval_hm calib.source.data.shots_from=val", "calib=ceval_hm calib.shots=val"),
    ("calib=sst2 rows@calib.source.data=boss_sa", "calib=boss_sa calib.path=FOLDER"),
    ("calib=boss_sa calib.source.data.source.name=amazon", "calib=boss_sa calib.path=FOLDER calib.name=amazon"),
    ("calib=sst2 calib.source.data.source.max_rows=5", "calib=sst2 calib.max_rows=5"),
    ("calib=sst2 calib.source.data.fields.text=body", "calib=sst2 calib.columns.text=body"),
    ("calib=c4 calib.source.data_files.train=x.json", "calib=c4 calib.files.train=x.json"),
    ("calib=mnli calib.source.data.source.places.0.splits.test=dev", "calib=mnli calib.test=dev"),
    ("calib=wiki calib.source.config=wikitext-103-v1", "calib=wiki calib.hub=ID:wikitext-103-v1"),
    ("+task@calib.natural.wiki=wiki", "calib.tests=[wiki,...]"),
    ("eval=local eval.tasks.local.source.path=mytext.txt", "eval=local eval.tasks.local.path=mytext.txt"),
    ("eval=local eval.tasks.local.source.column=body", "eval=local eval.tasks.local.path=a eval.tasks.local.text=body"),
    ("eval=samples +task@eval.tasks.mine=wiki", "eval.sets=[wiki]"),
    ("eval=samples +task/lm_eval@eval.tasks.piqa=piqa", "eval.sets=[wiki_sample] eval.names=[piqa]"),
    (
        "eval=exams_fewshot eval.tasks.ceval_hm.data.subjects=[law]",
        "eval=exams_zeroshot eval.tasks.ceval_hm.subjects=[law]",
    ),
    ("+sweep=s1_llama2_7b", "+sweep=s1 model=llama2_7b"),
    ("+sweep=s1_qwen3_8b_activations calib=wiki", "+sweep=s1_activations model=qwen3_8b calib=wiki"),
    ("eval.about.language=fr", "eval.names=[other] eval.origin.language=fr"),
]
"""What was typed, and what is typed today: of its last override, the answer says so."""

ONLY_SAID = [
    ("calib=ceval_hm 'calib.source.data.places=[{path: csv}]'", "calib.hub=[ID,...], or calib.files={train: ADDRESS"),
    ("calib=sst2 calib.source.data.label.map.0=bad", "calib.labels={VALUE: TEXT}"),
    ("calib=alpaca 'calib.source.render.parts=[a]'", 'calib.text="{COLUMN}\\n\\n{COLUMN}"'),
    ("calib=ultrachat calib.source.render.column=talk", "calib.render=NAME, an entry of parts/render.yaml"),
    ("'~calib.natural.c4'", "calib.tests=[NAME,...] without c4"),
    ("eval=ppl '~eval.tasks.c4'", "eval.sets=[NAME,...] without c4"),
    ("+scoring@eval.tasks.x=text", "`scoring: text` in the file of the set's family"),
    ("quantizer=rtn format@quantizer.weight=int4_channel", "int8_channel quantizer.weight.bits=4"),
    ("quantizer=rtn +activation@quantizer.activation=int4_token", "int8_token quantizer.activation.bits=4"),
    ("quantizer=omniquant quantizer.rounding.epochs=4", "quantizer.rounding.steps=N, minibatches"),
    ("calib=mix calib.sets.wiki.n=3", "an option file of yours in place of wiki"),
]

SWEEPS = """
demo s2_demo bits seeds eight_bits quantizers_bits quantizers_hqq quantizers_weights quantizers_activations
quantizers_kv quantizers_omniquant quantizers_signround quantizers_distill
"""
"""Each composes, and no two cells of one are the same: tests/launch/test_options.py."""


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[[str], list[Cell]]]:
    """Composes a line; all lines by one composer."""
    with offline_composer() as (composer, loader):
        yield lambda line: cells_of(composer, loader, shlex.split(line), Folders())


Composed = Callable[[str], list[Cell]]


@pytest.mark.slow
@pytest.mark.parametrize("line", STILL.strip().splitlines())
def test_a_line_that_stays_as_it_is_composes(line: str, composed: Composed) -> None:
    assert composed(line)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "today"), MOVED)
def test_a_line_of_before_is_answered_with_its_new_form(before: str, today: str, composed: Composed) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(before)
    said = str(caught.value).partition("this is now ")[2]
    assert said.endswith("; docs/migration.md has all new names")
    assert any(word in said for word in shlex.split(today)) or "calib.parts.ptb=WEIGHT" in said
    assert composed(today.replace(",...", ""))


@pytest.mark.parametrize(("before", "today"), ONLY_SAID)
def test_a_line_without_one_new_form_is_answered_with_what_replaces_it(
    before: str, today: str, composed: Composed
) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(before)
    assert today in str(caught.value)


def test_the_sweeps_of_before_are_there() -> None:
    assert set(SWEEPS.split()) <= set(Catalogue().files("sweep"))
