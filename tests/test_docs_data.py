"""The data sets of docs/own_data.md, from a folder outside the repository, by the real command: one file each."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from command import Workdir
from doc_pages import write_files
from prompts import long_llama
from quantbench.cli.listing import list_options
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders, config_dir
from tiny import save_tiny_model

GROUPS_OF_16 = "quantizer.weight.group_size=16"


@pytest.fixture
def lab(tmp_path: Path) -> Workdir:
    """A folder with the files of the pages, and tickets of the kind they describe."""
    made = Workdir(tmp_path)
    save_tiny_model(tmp_path / "model", long_llama())
    write_files(tmp_path)
    words = random.Random(1)
    rows = [
        {
            "subject": "" if number % 5 == 0 else f"ticket {number}",
            "body": " ".join("".join(words.choices("klmnop", k=4)) for _ in range(6)),
            "level": number % 3,
            "customer": f"A-{number // 4}",
        }
        for number in range(120)
    ]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def test_sets_and_families_of_the_page_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    list_options(["calib", "--config-dir", "mine"])
    lines = capsys.readouterr().out.splitlines()
    assert "  tickets                  what our support receives, subject and body" in lines
    (facts,) = [line.split() for line in lines if line.startswith("urgency ")]
    assert facts == ["urgency", "urgency", "(sa)", "support", "en", "internal", "not", "known"]
    list_options(["family", "--config-dir", "mine"])
    assert "  urgency                  how urgent a message is" in capsys.readouterr().out


def test_a_set_joins_a_family_by_a_copy_of_the_family_s_file(tmp_path: Path) -> None:
    for group in ("calib", "family"):
        (tmp_path / group).mkdir()
    family = (config_dir() / "family" / "sa.yaml").read_text()
    (tmp_path / "family" / "sa.yaml").write_text(family.replace("sst5]", "sst5, hotels]"))
    (tmp_path / "calib" / "hotels.yaml").write_text(
        "# calib=hotels: guests of hotels\nhub: someone/hotels\nlabels: {1: positive, 0: negative}\nfamily: sa\n"
    )
    for calibrated in ("sst5", "hotels"):
        (cell,) = compose_cells([f"calib={calibrated}"], Folders([tmp_path]))
        assert list(cell.tasks) == ["amazon", "dynasent", "semeval", "sst5", "hotels"]


def results(lab: Workdir, *arguments: str) -> pd.DataFrame:
    base = [one for one in lab.base if not one.startswith("calib")]
    sizes = ["calib.n=4", "calib.length=32"]
    done = lab.run("--config-dir=mine", *base, *sizes, GROUPS_OF_16, *arguments, base=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = lab.outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def test_tickets_of_two_columns_are_calibrated_on_and_tested_on(lab: Workdir) -> None:
    frame = results(lab, "quantizer=gptq", "calib=tickets", "eval.sets=[tickets]")
    found = frame[(frame["quantizer"] == "gptq") & (frame["metric"] == "kl")]
    assert found["in_distribution"].tolist() == [True]
    assert set(found["task"]) == {"tickets"}
    assert set(found["domain"]) == {"support"}


def test_columns_are_joined_on_the_command_line(lab: Workdir) -> None:
    frame = results(lab, "quantizer=gptq", "calib=local", "calib.path=tickets.jsonl", "calib.text=[subject,body]")
    assert frame["calib_tokens"].dropna().eq(128).all()


def test_numbers_are_labels(lab: Workdir) -> None:
    frame = results(lab, "quantizer=gptq", "calib=urgency", "eval.tasks.urgency.shots=3")
    found = frame[(frame["metric"] == "accuracy") & (frame["quantizer"] == "gptq")]
    assert found["in_distribution"].tolist() == [True]
    assert found["stderr"].notna().all()


def test_a_set_is_a_part_of_a_mixture(lab: Workdir) -> None:
    parts = ["calib.parts.tickets=0.5", "calib.parts.urgency=0.5"]
    frame = results(lab, "quantizer=gptq", "calib=mix", *parts, "eval.sets=[tickets]")
    assert set(frame[frame["quantizer"] == "gptq"]["relation"]) == {"mixed"}
