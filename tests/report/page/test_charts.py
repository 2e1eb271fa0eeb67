import re

import numpy as np
import pytest

from bayes_panns.report.page import drawings
from bayes_panns.report.page.charts import Charts, plain


def test_text_for_charts_has_no_formulas_and_no_control_characters():
    assert plain("a$b_c$") == r"a\$b_c\$"
    assert plain("_hidden").endswith("_hidden")
    assert not plain("_hidden").startswith("_")
    assert plain("line\nbreak\x00") == r"line\nbreak\x00"
    assert plain("x" * 99) == "x" * 27 + "…"


def test_a_label_in_any_script_is_drawn_without_a_warning(drawn):
    chart = Charts()("title", lambda ax: ax.set_xlabel(plain("犬 😀 $")), "alt")
    assert "犬 😀 $" in chart.svg


def test_charts_of_a_page_share_no_identifier(drawn):
    draw = Charts()
    texts = [draw("title", lambda ax: ax.plot([1, 2], "o-", label="a"), 'alt "<&').svg for _ in range(2)]
    names = [set(re.findall(r'id="([^"]*)"', text)) for text in texts]
    assert names[0]
    assert not names[0] & names[1]
    assert 'aria-label="alt &#34;&lt;&amp;"' in texts[0]


@pytest.mark.parametrize("size", [1, 2, 25])
def test_a_confusion_matrix_of_any_size_is_drawn(drawn, size):
    counts = np.eye(size, dtype=int) * 3
    counts[0, -1] += 1
    labels = [f"$label_{k}$" for k in range(size)]
    svg = Charts()("matrix", drawings.confusion(counts, labels), "alt").svg
    assert "$label_0$" in svg
    assert (">3</text>" in svg or ">4</text>" in svg) == (size <= 24)


def test_curves_skip_epochs_without_a_value(drawn):
    lines = [{"epoch": 1, "nll": 1.0, "scale/a": None}, {"epoch": 2, "nll": None, "scale/a": 0.0}, {"epoch": 3}]
    draw = Charts()
    assert "epoch" in draw("curve", drawings.curve([lines, lines], {"nll": "training", "val/nll": "v"}), "alt").svg
    assert "epoch" in draw("scales", drawings.scales(lines, {"part": ["scale/a"]}), "alt").svg
