"""Data sets of lm-eval 0.4.13 that cannot be loaded with today's `datasets`, and what there is instead.

As found by its maintainers, who opened every data set of the harness (EleutherAI/lm-evaluation-harness, threads 3171,
3645 and 3193). A set that has come back is loaded: these lines are for the message when it is not.
"""

from __future__ import annotations

_SCRIPT = "is a loading script, which `datasets` no longer runs"

BROKEN = {
    "bigbio/pubmed_qa": f"{_SCRIPT}. Its questions are in qiaojin/PubMedQA (pqa_labeled; another split)",
    "CogComp/mc_taco": f"{_SCRIPT}, and the hub has no other copy: its authors' repository on GitHub has the file",
    "EleutherAI/mutual": f"{_SCRIPT}, and the hub has no other copy: its authors' repository on GitHub has the files",
    "EleutherAI/hendrycks_ethics": f"{_SCRIPT}. lighteval/hendrycks_ethics has the same columns",
    "EleutherAI/logiqa": f"{_SCRIPT}. The task agieval_logiqa_en asks these questions in another form",
    "baber/logiqa2": f"{_SCRIPT}. The task agieval_logiqa_en asks the questions of its first version",
    "allenai/qasper": f"{_SCRIPT}. NomaDamas/qasper has a part of it",
    "EleutherAI/unscramble": f"{_SCRIPT}. lighteval/GPT3_unscramble has the same columns, its five sets as splits",
    "LSDSem/story_cloze": f"{_SCRIPT}, and needs a file that its authors give out by form. xstorycloze_en is near",
    "EleutherAI/pile": f"{_SCRIPT}. The task pile_10k reads a sample",
}
"""Data set -> why, and instead."""
