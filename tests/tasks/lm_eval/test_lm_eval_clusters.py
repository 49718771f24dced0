"""Questions on one passage are a cluster."""

from __future__ import annotations

from quantbench.tasks.lm_eval.clusters import cluster_of


def test_documents_on_one_passage_are_one_cluster_within_their_subtask() -> None:
    asked = [{"question": f"{i}?", "passage": "The sea." if i < 2 else "The sky."} for i in range(3)]
    first, second, third = (cluster_of("boolq", i, one) for i, one in enumerate(asked))
    assert first == second != third
    assert first.startswith("boolq/")
    assert cluster_of("drop", 0, asked[0]) != first


def test_a_document_without_a_passage_is_alone() -> None:
    alone = [{"question": "Why?"}, {"passage": ""}, {"passage": ["a", "list"]}, {"context": None}, "text"]
    assert [cluster_of("piqa", i, one) for i, one in enumerate(alone)] == [f"piqa/{i}" for i in range(5)]
