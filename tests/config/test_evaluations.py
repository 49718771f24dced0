"""What `eval=` selects: every option, suites of suites, options of single tests, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantbench.config.catalogue import Catalogue
from quantbench.config.composer import compose_cells, offline_composer
from quantbench.config.evaluations import MADE
from quantbench.config.folders import Folders
from quantbench.config.overrides import to_hydra
from quantbench.core.build import fields_of
from quantbench.core.errors import ConfigError
from quantbench.datasets.files import FileSource
from quantbench.datasets.labelled import LabelledSet
from quantbench.tasks.exam import ExamTask
from quantbench.tasks.label import LabelTask
from quantbench.tasks.lm_eval.task import LmEvalTask
from quantbench.tasks.prompt_task import PromptTask
from quantbench.tasks.task import Task
from quantbench.tasks.windows import TextTask

Tests = Callable[..., dict[str, Any]]

TOLD = {"lm_eval": ["eval.names=[piqa]"], "local": ["eval.tasks.local.path=some.txt"]}
"""What options ask for."""

NO_TASK = "{_target_: quantbench.formats.int.IntFormat, bits: 4, group_size: 64, symmetric: false}"

OWN_TASK = """
from quantbench.core.component import component
from quantbench.core.origin import Origin


@component
class Mine:
    hard: bool
    origin: Origin = Origin(name="mine", family="qa")

    def prepare(self): return ""

    def load(self, tokenizer, tokenizer_fingerprint): raise NotImplementedError
"""


@pytest.fixture(scope="module")
def tests() -> Tests:
    """Composes a command line, and gives what it tests by name."""
    with offline_composer() as (composer, _):
        pass  # others may compose meanwhile
    return lambda *typed: composer.cells([to_hydra(typed)])[0].tasks


def written(folder: Path, **options: str) -> Folders:
    """A folder of one's own with options of `eval`."""
    (folder / "eval").mkdir()
    for name, text in options.items():
        (folder / "eval" / f"{name}.yaml").write_text(text)
    return Folders([folder])


def composed(folders: Folders, *typed: str) -> dict[str, Task]:
    (cell,) = compose_cells(typed, folders)
    return cell.tasks


def named(option: str) -> list[str]:
    """The tests that an option names, in order."""
    node = Catalogue().option("eval", option)
    inner = [name for suite in node.get("suites") or () for name in named(suite)]
    return inner + [f"{name}{node.get('suffix', '')}" for key in ("sets", "names") for name in node.get(key) or ()]


@pytest.mark.slow
@pytest.mark.parametrize("option", Catalogue().files("eval"))
def test_every_option_composes_and_tests_what_it_names(tests: Tests, option: str) -> None:
    found = tests(f"eval={option}", *TOLD.get(option, []))
    expected = {"auto": ["wiki_sample", "news_sample", "code_sample"], "lm_eval": ["piqa"]}
    assert list(found) == expected.get(option, named(option))
    for name, task in found.items():
        assert isinstance(task, Task)
        told = (task.origin.family, task.origin.domain, task.origin.language)
        assert "unknown" not in told or option in {"local", "s1_broken"}, name


def test_a_suite_of_suites_holds_the_tests_of_all_with_the_options_of_each(tests: Tests) -> None:
    found = tests("eval=exams")
    assert {name: task.shots for name, task in found.items()} == {
        name: 5 if name.endswith("_5shot") else 0 for name in [*named("exams_zeroshot"), *named("exams_fewshot")]
    }
    assert found["ceval_hm"].data == found["ceval_hm_5shot"].data
    assert {type(task) for task in found.values()} == {ExamTask}
    assert len(tests("eval=boss")) == 16


def test_shots_and_suffix_of_a_command_line_reach_the_suites_that_say_none_themselves(tests: Tests) -> None:
    found = tests("eval=exams", "eval.shots=2", "eval.suffix=_new", "eval.tasks.ceval_hm_5shot_new.n=7")
    assert {name: task.shots for name, task in found.items()} == {
        f"{name}_new": 5 if name.endswith("_5shot") else 2 for name in named("exams")
    }
    assert found["ceval_hm_5shot_new"].n == 7 != found["ceval_ss_5shot_new"].n
    assert list(tests("eval.suffix=_new")) == ["wiki_sample_new", "news_sample_new", "code_sample_new"]


def test_a_suite_of_ones_own_is_taken_over_with_its_options_and_tasks(tmp_path: Path) -> None:
    task = f"{{_target_: {LmEvalTask.__module__}.LmEvalTask, task: mine}}"
    folders = written(
        tmp_path,
        small="sets: [sst2]\nnames: [piqa]\nsuffix: _s\nlimit: ${scale.windows}\n"
        f"tasks: {{sst2_s: {{n: 3, shots: 1}}, own: {task}}}\n",
        both="suites: [small, samples]\ntasks: {sst2_s: {shots: 2}, wiki_sample: {n_windows: 5}}\n",
    )
    found = composed(folders, "eval=both", "eval.tasks.sst2_s.max_tokens=99", "scale.windows=6")
    assert list(found) == ["sst2_s", "piqa_s", "own", "wiki_sample", "news_sample", "code_sample"]
    sst2, piqa, wiki, news = (found[name] for name in ("sst2_s", "piqa_s", "wiki_sample", "news_sample"))
    assert isinstance(sst2, LabelTask)
    assert (sst2.n, sst2.shots, sst2.max_tokens) == (3, 2, 99)  # the outer suite, and the command line before it
    assert isinstance(piqa, LmEvalTask)
    assert piqa.limit == 6
    assert isinstance(wiki, TextTask)
    assert isinstance(news, TextTask)
    assert (wiki.n_windows, news.n_windows) == (5, 6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("suites: [mine]", r"eval.suites: mine is a part of itself"),
        ("suites: [auto]", r"eval.suites: auto names no test"),
        ("suites: [nowhere]", r"eval=nowhere: no such choice"),
        ("sets: [wiki]\nshot: 5", r"eval\.shot: no such option\. Did you mean 'shots'"),
        ("suites: [inner]", r"eval=inner\.shot: no such option\. Did you mean 'shots'"),
        ("suites: [other]", r"eval=other\.tasks\.c4: no such test here; tests: wiki"),
        ("sets: [wiki]\ntasks: {wiki: 5}", r"eval\.tasks\.wiki=5: expected options of the test"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, option: str, message: str) -> None:
    inner = {"inner": "sets: [wiki]\nshot: 5\n", "other": "sets: [wiki]\ntasks: {c4: {n_windows: 1}}\n"}
    with pytest.raises(ConfigError, match=message):
        composed(written(tmp_path, mine=option, **inner), "eval=mine")


def test_options_of_one_test_change_that_one_alone(tests: Tests) -> None:
    found = tests("eval=boss_sa", "eval.tasks.sst5.shots=5", "eval.tasks.sst5.max_rows=9", "eval.shots=1")
    assert {name: task.shots for name, task in found.items()} == {"amazon": 1, "dynasent": 1, "semeval": 1, "sst5": 5}
    assert [found[name].data.source.max_rows for name in ("sst5", "dynasent")] == [9, None]
    assert all(isinstance(task, PromptTask) for task in found.values())


def test_a_chat_template_is_for_lm_eval_and_for_answers_that_are_generated(tests: Tests) -> None:
    found = tests("eval.names=[piqa]", "eval.sets=[squad,sst2]", "eval.chat=true")
    assert (found["piqa"].chat, found["squad"].chat) == (True, True)
    assert not found["sst2"].chats
    found = tests("eval.names=[piqa]", "eval.sets=[squad]", "eval.tasks.squad.chat=true")
    assert (found["piqa"].chat, found["squad"].chat) == (False, True)


def test_what_is_calibrated_on_is_tested_as_it_is_given_there(tests: Tests) -> None:
    given = ["calib=sst2", "calib.text=phrase", "calib.max_rows=7", "eval.sets=[sst2]"]
    (task,) = tests(*given, "eval.tasks.sst2.max_rows=5").values()
    assert task.data.columns["text"] == "phrase"
    assert task.data.source.max_rows == 5
    (task,) = tests(*given).values()
    assert task.data.source.max_rows is None  # only what is calibrated on is shortened


def test_the_tests_on_another_family_are_scored_as_that_one_is(tests: Tests) -> None:
    own = ["path=my.csv", "family=sa", "text=body", "labels={1: good, 0: bad}"]
    (task,) = tests("eval=local", *(f"eval.tasks.local.{one}" for one in own)).values()
    assert isinstance(task, LabelTask)
    assert isinstance(task.data, LabelledSet)
    assert task.data.label.texts == ("good", "bad")
    assert isinstance(task.data.source, FileSource)
    assert str(task.data.source.path) == "my.csv"


def test_tasks_of_lm_eval_stand_beside_data_sets_with_what_is_known_of_them(tests: Tests) -> None:
    found = tests("eval.sets=[sst2]", "eval.names=[piqa,wikitext,mine]", "eval.suffix=_x", "eval.limit=3")
    assert list(found) == ["sst2_x", "piqa_x", "wikitext_x", "mine_x"]
    known = {name: task.origin for name, task in found.items()}
    assert (known["piqa_x"].name, known["piqa_x"].family, known["piqa_x"].language) == ("piqa", "commonsense", "en")
    assert (known["wikitext_x"].name, known["wikitext_x"].family) == ("wiki", "lm")  # the text of that calibration set
    assert (known["mine_x"].name, known["mine_x"].family) == ("mine", "unknown")
    assert [found[name].limit for name in ("piqa_x", "mine_x")] == [3, 3]
    told = tests("eval.names=[piqa,mine]", "eval.origin={family: qa, language: de}", "eval.tasks.mine.shots=2")
    assert (told["mine"].origin.family, told["mine"].origin.language) == ("qa", "de")
    assert told["piqa"].origin == known["piqa_x"]
    assert (told["piqa"].shots, told["mine"].shots) == (None, 2)


def test_every_task_that_the_catalogue_describes_composes(tests: Tests) -> None:
    names = list(Catalogue().lm_eval())
    found = tests(f"eval.names=[{','.join(names)}]")
    assert list(found) == names
    for name, task in found.items():
        assert "unknown" not in (task.origin.family, task.origin.domain, task.origin.language), name


def test_a_description_with_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval" / "catalogue.yaml").write_text("mine: {description: x, family: qa, langauge: en}\n")
    with pytest.raises(ConfigError, match=r"catalogue, mine: unknown key 'langauge'"):
        composed(Folders([tmp_path]), "eval.names=[mine]")


@pytest.mark.parametrize("kind", ["scoring", "template"])
def test_parts_of_tests_list_every_parameter(kind: str) -> None:
    for name, part in Catalogue().parts(kind).items():
        assert set(part) - {"_target_"} == fields_of(part["_target_"], name) - set(MADE), name


def test_task_files_of_ones_own_are_not_what_the_catalogue_describes(tests: Tests) -> None:
    found = tests("eval.names=[piqa]", "eval.include_path=mine")
    assert found["piqa"].origin.family == "unknown"


def test_a_class_from_outside_is_a_test(tests: Tests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_task.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    given = "eval.tasks.riddles={_target_: outside_task.Mine, hard: true}"
    assert list(tests(given)) == ["riddles"]
    assert list(tests("eval=two_samples", given)) == ["wiki_sample", "code_sample", "riddles"]
    with pytest.raises(ConfigError, match=r"eval\.tasks\.riddles\.harder: no such option"):
        tests(given.replace("hard:", "harder:"))
    with pytest.raises(ConfigError, match=r"IntFormat is not a Task"):
        tests(f"eval.tasks.riddles={NO_TASK}")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["eval.tasks.wikki.window=64"], r"eval\.tasks\.wikki: no such test here; tests: wiki_sample, news_sample, c"),
        (
            ["eval.tasks.wiki_sample.windw=64"],
            r"eval\.tasks\.wiki_sample\.windw: no such option\. Did you mean 'window'",
        ),
        (
            ["eval.names=[piqa]", "eval.tasks.piqa.shot=5"],
            r"eval\.tasks\.piqa\.shot: no such option\. Did you mean 'sh",
        ),
        (["eval.chat=true"], r"eval\.chat=true: none of the tests has prompts for a chat template"),
        (["eval.shots=5"], r"eval\.shots=5: none of the tests takes so many worked examples"),
        (
            ["eval=exams_fewshot", "eval.suites=[samples]", "eval.sets=[wiki]", "eval.shots=3"],
            r"eval\.shots=3: none of",
        ),
        (["eval.sets=[wiki,wiki]"], r"eval: the test wiki stands there twice"),
        (["eval.sets=[piqa]", "eval.names=[piqa]"], r"eval\.sets: calib=piqa: no such choice\."),
        (["eval.sets=[shuffled]"], r"eval\.sets: calib=shuffled is no data set"),
        (["eval=lm_eval"], r"eval: it names no test; give eval\.sets=\[NAME,\.\.\.\] or eval\.names=\[TASK,\.\.\.\]"),
        (["eval.names=piqa"], r"eval\.names=piqa: expected a list of names; give eval\.names=\[piqa\]"),
        (["eval.sets=wiki"], r"eval\.sets=wiki: expected a list of names; give eval\.sets=\[wiki\]"),
        (["eval.suites=boss"], r"eval\.suites=boss: expected a list of names"),
        (["calib.tests=wiki"], r"calib\.tests=wiki: expected a list of names"),
        (["calib=random_tokens", "calib.tests=wiki"], r"calib\.tests=wiki: expected a list of names"),
        (["eval=local"], r"eval\.tasks\.local\.path: this option is required"),
    ],
)
def test_what_is_wrong_on_a_command_line_is_named(tests: Tests, typed: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tests(*typed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["eval.sets=[wiki]", "eval.include_path=."], "eval.include_path: only tasks of lm-eval have it"),
        (["eval.include_path=."], "eval.include_path: only tasks of lm-eval have it"),
        (["eval.sets=[wiki]", "eval.max_length=64"], "eval.max_length: only tasks of lm-eval have it"),
        (["eval.sets=[wiki]", "eval.origin.domain=law"], r"eval.origin: .* \(none is tested\)"),
        (["eval=lm_eval", "eval.names=[piqa]", "eval.origin.domain=law"], r"eval.origin: .* \(piqa: quantbench list"),
    ],
)
def test_an_option_of_lm_eval_that_concerns_no_test_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_cells(["quantizer=rtn", "calib=wiki", *options])
