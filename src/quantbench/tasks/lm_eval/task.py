"""lm-eval tasks as components: one task, tag or group, and a suite of several by their names."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from quantbench.config.compose import config_dir
from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.paths import LocalPath
from quantbench.tasks.lm_eval.prepared import LmEvalTestSet
from quantbench.tasks.task import Task

Shots = Annotated[int, Field(ge=0)] | None
Limit = Annotated[int, Field(ge=1)] | None
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]


@component
class LmEvalTask:
    """One task, tag or group of lm-eval. A tag or group is one task whose items are those of all its subtasks.

    task          its name in lm-eval, or in `include_path`
    shots         worked examples before each question; None: the task's own number
    limit         only the first documents of each subtask
    include_path  a folder with task files of your own, which go before lm-eval's of the same name
    seed          draws the worked examples; lm-eval's own default is 1234
    max_length    longer prompts lose their beginning; None: what the model takes, as lm-eval reads it
    batch_size    prompts at a time; "auto": as many as the GPU holds, 4 on a CPU. Changes last digits only
    about         family, domain, language of the distribution; name, if it is that of a calibration text
    """

    task: Annotated[str, Field(min_length=1)]
    shots: Shots = None
    limit: Limit = None
    include_path: LocalPath | None = None
    seed: Annotated[int, Field(ge=0)] = 1234
    max_length: Annotated[int, Field(ge=2)] | None = None
    batch_size: BatchSize = "auto"
    about: dict[str, Any] = field(default_factory=dict)

    def check_files(self) -> None:
        """Raise ConfigError if the folder of task files does not exist."""
        if self.include_path is not None and not self.include_path.is_dir():
            raise ConfigError(f"eval task {self.task}: include_path={self.include_path}: no such folder")

    @property
    def distribution(self) -> dict[str, str]:
        """name, family, domain and language of the test distribution."""
        described = {key: str(self.about.get(key, "unknown")) for key in ("family", "domain", "language")}
        return {"name": str(self.about.get("name", self.task)), **described}

    def prepare(self) -> str:
        """Download the data."""
        from quantbench.tasks.lm_eval import library

        self.check_files()
        found = library.load(self.task, self.include_path)
        names = sorted({f"{t.DATASET_PATH}" for t in found.tasks.values()})
        count = sum(len(t.eval_docs) for t in found.tasks.values())
        return f"{self.task}: {', '.join(names)}, {count} documents, in the Hugging Face cache (HF_HOME)"

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> LmEvalTestSet:
        """Load the data and render all prompts.

        Raises ConfigError for an unknown name and for shots the task does not take, DataError for data that cannot be
        had, and for fewer worked examples than asked for.
        """
        from quantbench.tasks.lm_eval.prepared import make

        self.check_files()
        return make(self, tokenizer, tokenizer_fingerprint)


@component
class LmEvalSuite:
    """Tasks of lm-eval by their names: what LmEvalTask takes, for all of them.

    suffix  what stands behind each name in results

    A task that has a file in conf/task/lm_eval is described by it; `about` describes the others.
    """

    names: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]*$")], ...], Field(min_length=1)]
    shots: Shots = None
    limit: Limit = None
    include_path: LocalPath | None = None
    seed: Annotated[int, Field(ge=0)] = 1234
    max_length: Annotated[int, Field(ge=2)] | None = None
    batch_size: BatchSize = "auto"
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+=-]*$")] = ""
    about: dict[str, Any] = field(default_factory=dict)

    def tasks(self) -> dict[str, Task]:
        """The tasks by name. Raises ConfigError for a name that stands twice."""
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ConfigError(f"eval.names: {twice[0]} stands there twice")
        return {name + self.suffix: self._task(name) for name in self.names}

    def _task(self, name: str) -> Task:
        file = config_dir() / "task" / "lm_eval" / f"{name.replace('-', '_')}.yaml"
        own = self.include_path is None and file.is_file()
        about = yaml.safe_load(file.read_text()).get("about", {}) if own else self.about
        return LmEvalTask(
            task=name,
            shots=self.shots,
            limit=self.limit,
            include_path=self.include_path,
            seed=self.seed,
            max_length=self.max_length,
            batch_size=self.batch_size,
            about=about,
        )
