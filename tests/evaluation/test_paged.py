"""Numbers as a page's tables take them."""

from civae_core.evaluation.paged import page_glossary, page_sections

METHODS = {
    "ours": {"leak": {"Male": 0.25, "Hat": {"mean": -0.5, "lo": -0.75, "hi": -0.25}}},
    "copy": {"leak": {"Male": 0.0}},
    "mine": {"leak": {"Hat": {"mean": 1.0, "sd": 0.125, "runs": [0.875, 1.125]}}},
}


def test_cells_stand_in_the_order_of_methods_with_the_best_marked() -> None:
    (section,) = page_sections(METHODS)
    hat, male = section["rows"]  # the largest first
    assert (hat["title"], male["title"]) == ("leak into Hat", "leak into Male")
    assert [cell["text"] for cell in hat["cells"]] == ["–", "-0.50", "1.00 ± 0.12"]
    assert [cell["small"] for cell in hat["cells"]] == [[], ["-0.75 – -0.25"], ["2 runs"]]
    assert [cell["best"] for cell in hat["cells"]] == [False, True, False]
    assert [cell["text"] for cell in male["cells"]] == ["0.00", "0.25", "–"]


def test_a_meaning_stands_once_whatever_it_was_measured_of() -> None:
    one_table = page_glossary([METHODS])
    assert [word["title"] for word in one_table] == ["leak into Hat, and 1 more"]
    other = {"ours": {"leak": {"Hat": 0.5}, "ate_error": 0.25}}
    titles = [word["title"] for word in page_glossary([METHODS, other])]
    assert titles == ["leak into Hat, and 1 more", "average effect error"]
