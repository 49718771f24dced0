"""Lines of WikiText belong to the article whose title stands above them."""

from __future__ import annotations

from quantbench.datasets.articles import article_numbers


def test_lines_belong_to_the_title_above_them() -> None:
    lines = ["", " = Robert Boulter = \n", "", " An actor = a man . \n", " = = Career = = \n", " = = = 2000 = = = \n"]
    lines += [" In = 2000 = he \n", " = E = mc² = \n", " text \n", " = X = \n"]
    assert article_numbers(lines).tolist() == [0, 1, 1, 1, 1, 1, 1, 2, 2, 3]


def test_other_texts_are_documents_as_they_are() -> None:
    assert article_numbers(["one", "= = Section = =", "=", "a = b"]).tolist() == [0, 1, 2, 3]
    assert article_numbers([]).tolist() == []
