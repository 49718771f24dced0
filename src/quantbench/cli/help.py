"""`quantbench --help`: read from the folders of options alone, so that it takes no time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from quantbench.config.catalogue import Catalogue
from quantbench.config.folders import Folders
from quantbench.config.groups import LISTED

HEAD = """\
quantbench: what calibrating on one text costs a quantized language model on another.

  python -m quantbench quantizer=gptq calib=wiki_sample       one cell
  python -m quantbench -m quantizer=gptq,awq calib=c4,wiki    a grid: every combination, and its tables
  python -m quantbench +sweep=demo                            a grid from sweeps/

Commands (each has its own --help):
  quantbench list [GROUP]            options, each with a line saying what it is
  quantbench prepare [key=value ...] fetch what a configuration or sweep needs, before going offline
  quantbench show RUN                settings, scores, provenance and log of a run
  quantbench collate [SWEEP ...]     make results.csv and the tables again; --all: of every sweep
  quantbench status [SWEEP]          where each cell of a sweep stands (--watch, --json)
  quantbench logs CELL               what a cell said, and why it failed
  quantbench cancel SWEEP            end its jobs; finished parts are kept
  quantbench retry SWEEP             submit again what failed, was lost or cancelled
  quantbench compare SWEEP ...       recipes side by side; --against X: tests against a recipe, text, variant or run
  quantbench compare RUN RUN         what two runs differ in, and what that does
  quantbench report SWEEP ...        one HTML page: findings, figures, numbers and commands; also figures as files
  quantbench pareto SWEEP ...        bits, bytes or modelled time against loss; --below: the cheapest recipe within it
  quantbench roofline MODEL          modelled time and memory on --hardware NAME; also of a RUN or SWEEP
  quantbench export RUN --to F OUT   its model for vLLM, transformers or llama.cpp, read again and compared
  quantbench measure FOLDER          memory and rates of such an export, in transformers or llama.cpp
  quantbench pack SWEEP ... --to F   records and scores as one small file; merge F ...: add them to the results here
"""

TAIL = """\
Values: key=value sets one, key=a,b with -m sweeps it. All keys, with the values that a command line gives them:
  quantbench quantizer=gptq calib=c4 --cfg job --resolve

Flags: -m, --multirun     a grid
       --config-dir DIR   options of your own, in folders named as the groups
       --cfg job          print the composed values instead of running
       --version, --help, --hydra-help
"""


def help_text(config_dirs: Sequence[Path] = ()) -> str:
    """What `--help` prints; options under `config_dirs` are counted, too."""
    catalogue = Catalogue(Folders(list(config_dirs)))
    counts = [f"{name} {catalogue.count(name)}" for name in LISTED]
    lines = ["", "Options: GROUP=OPTION chooses one, `quantbench list GROUP` says what each is. Of each there are:"]
    lines.append(textwrap.fill(", ".join(counts), 100, initial_indent="  ", subsequent_indent="  "))
    return HEAD + "\n".join([*lines, "", TAIL])
