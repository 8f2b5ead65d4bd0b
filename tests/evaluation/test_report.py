"""The report and the terminal's table: tolerant of absent numbers, escaped, self-contained."""

import re
from typing import Any

import torch
from rich.console import Console

from civae_core.balance.diagnostics import overlap_report
from civae_core.evaluation.measures import best_methods, measures_present, sections_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.realism import kernel_distance
from civae_core.evaluation.report import render_evaluation
from civae_core.evaluation.seeds import summarise
from civae_core.evaluation.table import evaluation_tables
from civae_core.evaluation.values import Value, as_value
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import Picture


def evaluation() -> dict[str, Any]:
    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "lo": mean - 0.03, "hi": mean + 0.03}

    return {
        "schema": 1,
        "data": "synthetic:faces",
        "split": "test",
        "n": 600,
        "noise": 1.0,
        "treatment": ["Young"],
        "covariates": ["Male", "Smiling"],
        "descendants": [],
        "do": {"Young": "flip"},
        "methods": {
            "ours": {
                "relative_effect_error": interval(0.21),
                "relative_effect_error_mean_image": interval(0.34),
                "ate_error": 0.14,
                "psnr_counterfactual": interval(27.31),
                "psnr_reconstruction": interval(24.02),
                "effectiveness": {"Young": {"accuracy": 0.97, "auc": 0.99}},
                "leak": {"Male": interval(-1.55), "Smiling": interval(0.11)},
                "a_key_of_the_future": {"deep": [1, 2]},
            },
            "cvae": {"relative_effect_error": interval(0.66), "ate_error": float("nan")},
            "copy": {"relative_effect_error": interval(1.0), "psnr_counterfactual": interval(19.0)},
        },
    }


def cells(html: str, title: str) -> list[str]:
    """Text of a table row's cells, without intervals."""
    row = re.search(rf'<th scope="row">{re.escape(title)}(?:<small>.*?</small>)*</th>(.*?)</tr>', html, re.S)
    assert row is not None, title
    return [
        re.sub(r"<small>.*?</small>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.S)
    ]


def test_values_and_what_is_no_value() -> None:
    assert as_value({"mean": 1, "lo": 0.5, "hi": 2.0}) == Value(1.0, 0.5, 2.0)
    assert as_value(0.25) == Value(0.25)
    assert Value(-0.001, -0.004, 0.2).text(2) == "0.00"
    assert Value(-0.001, -0.004, 0.2).interval_text(2) == "0.00 – 0.20"
    for nothing in (None, "x", True, float("nan"), {"lo": 1.0}, [1.0]):
        assert as_value(nothing) is None


def test_only_measured_numbers_are_shown_and_the_best_is_neither_copy_nor_truth() -> None:
    methods = evaluation()["methods"]
    shown = measures_present(methods)
    titles = [measure.title for measure in shown]
    assert titles[:3] == ["relative effect error", "relative effect error, noise 0", "average effect error"]
    assert "bits per dimension" not in titles
    assert [s.title for s in sections_present(methods)][1:3] == [
        "Does the change show?",
        "What else changed?",
    ]
    assert best_methods(methods, shown[0]) == {"ours"}
    methods["copy"]["relative_effect_error"]["mean"] = 0.0
    methods["truth"] = {"relative_effect_error": 0.0}
    assert best_methods(methods, shown[0]) == {"ours"}
    assert ordered(["truth", "mine", "ours", "copy"]) == ["copy", "ours", "mine", "truth"]


def test_a_leak_is_better_the_nearer_it_is_to_0_and_the_largest_comes_first() -> None:
    methods = {"a": {"leak": {"Hat": -0.2, "Male": 0.1}}, "b": {"leak": {"Hat": 0.1, "Male": -3.0}}}
    worst, other = measures_present(methods)
    assert (worst.title, other.title) == ("leak into Male", "leak into Hat")
    assert best_methods(methods, worst) == {"a"} and best_methods(methods, other) == {"b"}


def test_an_attribute_may_have_any_name() -> None:
    methods = {"ours": {"effectiveness": {"a.b/{c}": {"accuracy": 0.5}}}}
    (measure,) = measures_present(methods)
    assert measure.title == "a.b/{c} as intended" and measure.value(methods["ours"]) == Value(0.5)


def test_report_states_the_numbers_with_dashes_for_absent_ones() -> None:
    html = render_evaluation(evaluation(), [])
    assert cells(html, "relative effect error") == ["1.00", "0.66", "0.21"]
    assert cells(html, "relative effect error, noise 0") == ["–", "–", "0.34"]
    assert cells(html, "average effect error") == ["–", "–", "0.14"]
    assert cells(html, "leak into Male") == ["–", "–", "-1.55"]
    assert cells(html, "Young: AUC of the intended value") == ["–", "–", "0.99"]
    assert "0.18 – 0.24" in html
    assert "cvae 0.66, ours 0.21" in html
    assert "Young → the other value" in html
    assert "a_key_of_the_future" not in html


def test_report_embeds_pictures_and_overlap_and_asks_no_network() -> None:
    x_NC = (torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    found = overlap_report(x_NC, x_NC[:, 0].roll(1), ["Male", "Smiling"], "Young", "binary", [True, True])
    pictures = [
        Picture("sheet", "A sheet", "original | truth", image_grid([("a", torch.zeros(2, 3, 32, 32))]))
    ]
    html = render_evaluation(evaluation() | {"overlap": {"Young": found.to_dict()}}, pictures)
    assert "<h3>A sheet</h3>" in html
    assert html.count("data:image/png;base64,") == 1
    assert found.verdict.replace("'", "&#39;") in html
    assert not re.search(r"(?:src|href)=\"(?!data:)", html)


def test_what_belongs_to_the_worst_is_named_and_runs_have_a_spread() -> None:
    shown = evaluation()
    shown["methods"]["ours"] |= {
        "worst_leak": {"attribute": "Male", "mean": -0.4, "lo": -0.5, "hi": -0.3},
        "ate_error": {"mean": 0.141, "sd": 0.012, "runs": [0.13, 0.14, 0.153]},
        "subgroups": {
            "relative_effect_error": {
                "worst": {"group": "Male=1, Young 0 → 1", "n": 31, "mean": 0.5},
                "groups": [{"group": "g2", "n": 40, "mean": 0.1}, {"group": "g1", "n": 31, "mean": 0.5}],
            }
        },
    }
    shown["scorer"] = {"name": "scorer 3f", "photos": {"Male": {"accuracy": 0.98, "auc": 0.99}}}
    shown["scorer"]["reconstructions"] = {"ours": {"Male": {"accuracy": 0.9}}}
    html = render_evaluation(shown, [])
    assert "<small>Male</small><small>-0.50 – -0.30</small>" in html
    assert "0.14 ± 0.01<small>3 runs</small>" in html
    assert html.index(">g1<") < html.index(">g2<") and "Male=1, Young 0 → 1" in html
    assert "judged by" in html and "0.98 (AUC 0.99)" in html
    assert html.count("<dt>average effect error</dt>") == 1
    text = table_text(shown, 140)
    assert "0.14 ± 0.01" in text and "standard deviation over runs" in text
    assert re.search(r"worst leak.*-0\.40\n.*Male\n", text)


def test_the_spread_of_kid_over_subsets_does_not_pass_for_one_over_runs() -> None:
    rows_NF = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    kid = kernel_distance(rows_NF[:150], rows_NF[150:] + 1, seed=0)
    assert kid["sd_subsets"] > 0
    older = {"mean": kid["mean"], "sd": kid["sd_subsets"]}
    for entry in (kid, older):
        shown = evaluation()
        realism = {"fid": 1.0, "kid": entry, "extractor": "scorer 3f", "n": 150, "n_reference": 150}
        shown["methods"]["ours"]["realism"] = realism
        shown["methods"]["ours"]["samples"] = {"kid": {"prior": entry}}
        html = render_evaluation(shown, [])
        for title in ("KID", "KID of people from the prior"):
            assert cells(html, title) == ["–", "–", f"{kid['mean']:.4f}"]
        assert "± does, where several runs are given" in html
        shown["methods"]["ours"] = summarise([{"realism": realism}, {"realism": realism}])
        assert cells(render_evaluation(shown, []), "KID")[-1] == f"{kid['mean']:.4f} ± 0.0000"


def test_names_are_escaped() -> None:
    hostile = evaluation()
    hostile["data"] = "<script>alert(1)</script>"
    hostile["methods"]["<b>x</b>"] = {"ate_error": 0.5, "leak": {"<i>y</i>": 1.0}}
    html = render_evaluation(
        hostile, [Picture("a", "<s>t</s>", "<u>caption</u>", image_grid([("a", torch.zeros(1, 3, 16, 16))]))]
    )
    for tag in ("<script>", "<b>x", "<i>y", "<u>", "<s>"):
        assert tag not in html


def test_an_evaluation_without_anything_still_renders() -> None:
    assert "No method was measured" in render_evaluation({}, [])
    reconstruction_only = {
        "methods": {"ours": {"psnr_reconstruction": {"mean": 24.0, "lo": 23.0, "hi": 25.0}}}
    }
    html = render_evaluation(reconstruction_only, [])
    assert 'headline">' not in html and cells(html, "PSNR of reconstructions (dB)") == ["24.0"]


def table_text(shown: dict[str, Any], width: int) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        for table in evaluation_tables(shown, width):
            console.print(table)
    return capture.get()


def test_terminal_table_has_methods_in_order() -> None:
    text = table_text(evaluation(), 140)
    head = next(line for line in text.splitlines() if "measure" in line)
    assert head.index("copy") < head.index("cvae") < head.index("ours")
    lines = text.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("↓ relative effect error "))
    assert lines[row].split()[-3:] == ["1.00", "0.66", "0.21"]
    assert re.findall(r"\[.*?\]", lines[row + 1]) == ["[0.97, 1.03]", "[0.63, 0.69]", "[0.18, 0.24]"]
    assert "synthetic:faces, 600 test images, noise 1, do(Young=flip)" in text
    assert "–" in next(line for line in lines if "PSNR of reconstructions" in line)


def test_terminal_table_of_four_methods_breaks_no_number_at_80_columns() -> None:
    shown = evaluation()
    ours = shown["methods"]["ours"] | {"mse_off_effect": {"mean": 0.00234, "lo": 0.0022, "hi": 0.0025}}
    shown["methods"] = dict.fromkeys(("copy", "cvae", "original", "ours"), ours)
    lines = table_text(shown, 80).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert text.count("[0.18, 0.24]") == text.count("[0.31, 0.37]") == text.count("0.00234") == 4
    assert text.count("[23.99, 24.05]") == 0 and text.count("[24.0, 24.1]") == 4


def test_terminal_table_of_five_methods_leaves_intervals_out_at_80_columns() -> None:
    shown = evaluation()
    names = ("copy", "cvae", "original", "ours", "truth")
    shown["methods"] = dict.fromkeys(names, shown["methods"]["ours"])
    narrow, wide = table_text(shown, 80), table_text(shown, 100)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("measure ") == wide.count("measure ") == 1
    assert "[" not in narrow and "intervals: in a wider window, and in evaluation.json" in narrow
    assert wide.count("[0.18, 0.24]") == 5 and "wider window" not in wide
    assert table_text(shown, 60).count("measure ") > 1, "too narrow for either"
