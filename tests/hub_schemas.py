"""What data sets are like at the hub: configurations, splits, columns, files. Facts, read by hand from the sets' pages.

Options are tested against this table, so nothing here may be derived from an option. Columns of which the page said
nothing are not listed; a note says where a name was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub_exams import CEVAL_SUBJECTS, CMMLU_SUBJECTS

Type = Any
"""A type: "string", "int64", "float64"; Classes; [type] for a list; {name: type} for a structure."""


@dataclass(frozen=True)
class Classes:
    """Numbers of named classes."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A type, and the values of the rows in turn; in texts {split} and {i}, the number of the row, are filled in."""

    type: Type
    values: tuple[Any, ...]


Columns = Mapping[str, Column | str]
"""By name; a string describes a text column, with one text for all rows in which {split} and {i} are filled in."""


@dataclass(frozen=True)
class Repository:
    """A data set repository.

    configs    configuration -> split -> columns: Parquet files that the card names
    files      file -> columns, where the repository has no card and readers name the files
    is_script  its main branch is a loading script; `configs` lie in the hub's own conversion only
    commit     of the branch that holds the data
    few        how many rows a split has, where it is known to be few
    """

    configs: Mapping[str, Mapping[str, Columns]] = field(default_factory=dict)
    files: Mapping[str, Columns] = field(default_factory=dict)
    is_script: bool = False
    commit: str = "a" * 40
    few: Mapping[str, int] = field(default_factory=dict)


TEXT = "text {i} of {split}: {i} then words"
"""A text unlike that of every other row and split."""


def classes(names: str, *values: int) -> Column:
    """A column of named classes; by default each in turn. -1 stands for no label."""
    kind = Classes(tuple(names.split()))
    return Column(kind, values or tuple(range(len(kind.names))))


def same(columns: Columns, splits: str) -> dict[str, Columns]:
    return dict.fromkeys(splits.split(), columns)


NLI = "entailment neutral contradiction"
PAIR: Columns = {"premise": "premise {i} of {split}", "hypothesis": "hypothesis {i} of {split}"}
SQUAD: Columns = {
    "id": "{split}-{i}",
    "title": "Title",
    "context": "passage {i} of {split} tells of Ann Lee",
    "question": "who is number {i} of {split}?",
    "answers": Column(
        {"text": ["string"], "answer_start": ["int32"]},
        ({"text": ["Ann Lee", "Ann"], "answer_start": [0, 0]}, {"text": ["Lee"], "answer_start": [4]}),
    ),
}
MRQA: Columns = {
    "context": "passage {i} of {split} tells of Ann Lee",
    "question": "who is number {i} of {split}?",
    "answers": Column(["string"], (["Ann Lee", "Ann"], ["Lee"])),
    "key": "{split}-{i}",
    "labels": Column([{"start": ["int64"], "end": ["int64"]}], ([{"start": [0], "end": [6]}],)),
}


def tagged(names: str, *tags: Sequence[int], **more: Column) -> Columns:
    kind = Classes(tuple(names.split()))
    tokens = Column(["string"], (["Ann", "Lee", "{split}-{i}"], ["in", "Rome", "{split}-{i}"]))
    return {"id": "{i}", "tokens": tokens, "ner_tags": Column([kind], tuple(map(list, tags))), **more}


CONLL = tagged("O B-PER I-PER B-ORG I-ORG B-LOC I-LOC B-MISC I-MISC", (1, 2, 0), (0, 5, 0))
WNUT = tagged(
    "O B-corporation I-corporation B-creative-work I-creative-work B-group I-group B-location I-location "
    "B-person I-person B-product I-product",
    (9, 10, 0),
    (0, 7, 0),
)
FEW_NERD = tagged(
    "O art building event location organization other person product",
    (7, 7, 0),
    (0, 4, 0),
    fine_ner_tags=Column(["int64"], ([50, 50, 0], [0, 21, 0])),
)
INSTRUCTION: Columns = {
    "instruction": "Do number {i} of {split}.",
    "input": Column("string", ("", "given {i} of {split}")),
    "output": "Done, {i} of {split}.",
}
ROLES = [{"role": "string", "content": "string"}]
TALK: Sequence[Any] = [{"role": "user", "content": "Hello {i}"}, {"role": "assistant", "content": "Hi {i} of {split}"}]
DIALOGUE: Columns = {"messages": Column(ROLES, (TALK,))}
CHOICES: Columns = {letter: f"choice {letter} of {{i}}" for letter in "ABCD"}


def ceval(subject: str) -> dict[str, Columns]:
    """dev, val, and a test split without answers."""
    question: Columns = {"id": Column("int64", (0,)), "question": f"{subject} {{i}} of {{split}}?", **CHOICES}
    answered: Columns = {**question, "answer": Column("string", tuple("ABCD")), "explanation": ""}
    return {"dev": answered, "val": answered, "test": {**answered, "answer": ""}}


def cmmlu(subject: str) -> Columns:
    return {"Question": f"{subject} {{i}} of {{split}}?", **CHOICES, "Answer": Column("string", tuple("ABCD"))}


LABELLED: dict[str, Repository] = {
    "cardiffnlp/tweet_eval": Repository(
        {"sentiment": same({"text": TEXT, "label": classes("negative neutral positive")}, "train validation test")}
    ),
    "nyu-mll/glue": Repository(
        {
            "sst2": {
                **same({"sentence": TEXT, "label": classes("negative positive")}, "train validation"),
                "test": {"sentence": TEXT, "label": classes("negative positive", -1)},
            },
            "mnli": {
                **same({**PAIR, "label": classes(NLI)}, "train validation_matched validation_mismatched"),
                **same({**PAIR, "label": classes(NLI, -1)}, "test_matched test_mismatched"),
            },
        }
    ),
    "facebook/anli": Repository(
        {
            "default": same(
                {"uid": "{split}-{i}", **PAIR, "label": classes(NLI), "reason": ""},
                "train_r1 dev_r1 test_r1 train_r2 dev_r2 test_r2 train_r3 dev_r3 test_r3",
            )
        }
    ),
    "alisawuffles/WANLI": Repository(
        files=same({"id": "{i}", **PAIR, "gold": Column("string", tuple(NLI.split()))}, "train.jsonl test.jsonl")
        | {"anonymized_annotations.jsonl": {"WorkerId": "{i}"}}  # there is a third file; its name was not seen
    ),
    "kiddothe2b/contract-nli": Repository(  # the order of the classes was not seen
        dict.fromkeys(
            ("contractnli_a", "contractnli_b"),
            same({**PAIR, "label": classes("contradiction entailment neutral")}, "train validation test"),
        ),
        is_script=True,
    ),
    "google/civil_comments": Repository(
        {"default": same({"text": TEXT, "toxicity": Column("float32", (0.0, 0.49, 0.5, 1.0))}, "train validation test")}
    ),
    "tasksource/implicit-hate-stg1": Repository(
        {
            "default": {
                "train": {"post": TEXT, "class": Column("string", ("not_hate", "implicit_hate", "explicit_hate"))}
            }
        }
    ),
    "toxigen/toxigen-data": Repository(
        {
            "annotated": same(
                {
                    "text": TEXT,
                    "toxicity_ai": Column("float64", (1.0, 1.0, 5.0)),
                    "toxicity_human": Column("float64", (4.9, 5.0, 4.0)),
                },
                "train test",
            )
        }
    ),
    "SetFit/sst5": Repository(
        files=same(
            {
                "text": TEXT,
                "label": Column("int64", (0, 1, 2, 3, 4)),
                "label_text": Column("string", ("very negative", "negative", "neutral", "positive", "very positive")),
            },
            "train.jsonl dev.jsonl test.jsonl",
        )
    ),
    "rajpurkar/squad": Repository({"plain_text": same(SQUAD, "train validation")}),
    "UCLNLP/adversarial_qa": Repository(
        {"adversarialQA": same(SQUAD, "train validation test"), "dbert": same(SQUAD, "train validation test")}
    ),
    "lucadiliello/newsqa": Repository({"default": same(MRQA, "train validation")}),
    "lucadiliello/searchqa": Repository({"default": same(MRQA, "train validation")}),
    "tomaarsen/conll2003": Repository({"default": same(CONLL, "train validation test")}),
    "lhoestq/conll2003": Repository({"default": same(CONLL, "train validation test")}),
    "flaitenberger/wnut_17": Repository({"default": same(WNUT, "train validation test")}),
    "manu/wnut_17": Repository({"default": same(WNUT, "train validation test")}),
    "DFKI-SLT/few-nerd": Repository({"supervised": same(FEW_NERD, "train validation test")}, is_script=True),
    "ceval/ceval-exam": Repository({subject: ceval(subject) for subject in CEVAL_SUBJECTS}, few={"dev": 5}),
    "haonan-li/cmmlu": Repository(
        {subject: same(cmmlu(subject), "dev test") for subject in CMMLU_SUBJECTS}, few={"dev": 5}
    ),
}
"""Sets with labels, answers, tags or choices."""

RED = "togethercomputer/RedPajama-Data-1T-Sample"
TEXTS: dict[str, Repository] = {
    "Salesforce/wikitext": Repository(
        dict.fromkeys(("wikitext-2-raw-v1", "wikitext-103-raw-v1"), same({"text": TEXT}, "train validation test"))
    ),
    "ptb-text-only/ptb_text_only": Repository(
        {"penn_treebank": same({"sentence": TEXT}, "train validation test")}, is_script=True
    ),
    "allenai/c4": Repository(
        files=same(
            {"text": TEXT, "timestamp": "", "url": ""},
            "en/c4-train.00000-of-01024.json.gz en/c4-train.00001-of-01024.json.gz "
            "en/c4-validation.00000-of-00008.json.gz en/c4-validation.00001-of-00008.json.gz",
        )
    ),
    "mit-han-lab/pile-val-backup": Repository(files={"val.jsonl.zst": {"text": TEXT, "meta": "x"}}),
    "NeelNanda/pile-10k": Repository(
        {"default": {"train": {"text": TEXT, "meta": Column({"pile_set_name": "string"}, ({"pile_set_name": "x"},))}}}
    ),
    RED: Repository(  # a loading script with plain files beside it
        files=same(
            {"text": TEXT, "meta": "x"},
            "arxiv_sample.jsonl book_sample.jsonl c4_sample.jsonl github_sample.jsonl stackexchange_sample.jsonl "
            "wikipedia_sample.jsonl",
        ),
        is_script=True,
    ),
    "DKYoon/SlimPajama-6B": Repository(
        files=same({"text": TEXT}, "data/train-00000-of-00048.parquet data/train-00001-of-00048.parquet")
        | same({"text": TEXT}, "data/validation-00000-of-00001.parquet data/test-00000-of-00001.parquet")
    ),
    "HuggingFaceFW/fineweb-edu": Repository(
        files=same({"text": TEXT, "id": "{i}"}, "sample/10BT/000_00000.parquet sample/10BT/001_00000.parquet")
    ),
    "wikimedia/wikipedia": Repository(
        files=same(
            {"id": "{i}", "url": "", "title": "Title {i}", "text": TEXT},
            "20231101.zh/train-00000-of-00006.parquet 20231101.zh/train-00001-of-00006.parquet",
        )
    ),
    "Skywork/SkyPile-150B": Repository(
        files=same({"text": TEXT}, "data/2020-40_zh_head_0000.jsonl data/2020-40_zh_head_0001.jsonl")
    ),
    "pleisto/wikipedia-cn-20230720-filtered": Repository({"default": {"train": {"completion": TEXT, "source": "x"}}}),
    "BAAI/CCI3-HQ": Repository(  # the names of its files were not seen
        files={"data/part_000000.jsonl": {"id": "{i}", "text": TEXT, "score": Column("float64", (3.5,))}}
    ),
    "C-MTEB/ThuNewsClusteringP2P": Repository(  # columns not seen
        {
            "default": {
                "test": {
                    "sentences": Column(["string"], (["first {i} of {split}", "second {i} of {split}"],)),
                    "labels": Column(["string"], (["1", "2"],)),
                }
            }
        },
        commit="5798586b105c0434e4f0fe5e767abe619442cf93",
    ),
    "C-MTEB/TNews-classification": Repository(  # columns not seen; its test split has no labels
        {"default": same({"text": TEXT, "label": Column("int64", (0, 1))}, "train validation test")},
        commit="317f262bf1e6126357bbe89e875451e4b0938fe4",
    ),
    "claudios/code_search_net": Repository(  # which of the two columns is the function was not seen
        {"python": same({"whole_func_string": TEXT, "func_code_string": "x", "language": "python"}, "train test")},
        is_script=True,
    ),
    "bigcode/the-stack-smol-xl": Repository(
        files=same({"content": TEXT, "lang": "x"}, "data/java/data.json data/python/data.json")
    ),
    "mteb/FloresBitextMining": Repository(  # columns not seen
        {"default": same({"sentence_eng_Latn": TEXT, "sentence_zho_Hans": "x"}, "dev devtest")},
        commit="2144d16cc15edd22d4a9237d12bff5f31f5c07fc",
    ),
    "HuggingFaceH4/ultrachat_200k": Repository(
        {"default": same({"prompt": "Hello {i}", **DIALOGUE}, "train_sft test_sft train_gen test_gen")}
    ),
    "neuralmagic/calibration": Repository(files={"llm.parquet": DIALOGUE, "vlm.parquet": {"images": "x"}}),
    "garage-bAInd/Open-Platypus": Repository({"default": {"train": INSTRUCTION}}),
    "tatsu-lab/alpaca": Repository({"default": {"train": {**INSTRUCTION, "text": "x"}}}),
    "yahma/alpaca-cleaned": Repository({"default": {"train": INSTRUCTION}}),
}
"""Sets that are read as running text."""

HUB = LABELLED | TEXTS

DYNASENT = "https://github.com/cgpotts/dynasent/raw/main/dynasent-v1.1.zip"
AMAZON = "https://jmcauley.ucsd.edu/data/amazon_v2/categoryFilesSmall/Luxury_Beauty_5.json.gz"
CMMLU = "https://raw.githubusercontent.com/haonan-li/CMMLU/HEAD/data/{split}/{subject}.csv"

ADDRESSES: dict[str, Mapping[str, Columns]] = {
    AMAZON: {"": {"reviewText": TEXT, "overall": Column("float64", (1.0, 2.0, 3.0, 4.0, 5.0))}},
    DYNASENT: {
        f"dynasent-v1.1/dynasent-v1.1-round01-yelp-{split}.jsonl": {
            "sentence": TEXT,
            "gold_label": Column("string", ("positive", "negative", "neutral", "mixed", None)),
        }
        for split in ("train", "dev", "test")
    },
    **{
        CMMLU.format(split=split, subject=subject): {"": {"": Column("int64", (0,)), **cmmlu(subject)}}
        for split in ("dev", "test")
        for subject in CMMLU_SUBJECTS
    },
}
"""Address of a file outside of the hub -> member of the archive ("" if it is none) -> columns."""
