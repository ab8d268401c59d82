"""HTML for notebooks: texts are escaped, colours are those of the page, and curves leave gaps."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from mlx_fp.core._html import html_table, sparkline

NAMES = ["<script>alert(1)</script>", 'a "quoted" name', "שם", "a & b", "]]>"]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_has_the_text_and_nothing_else(name):
    table = ET.fromstring(html_table([["name", "value"], [name, 1.5]], caption=name))
    assert table.find("caption").text == name
    assert [cell.text for cell in table.iter("td")] == [name, "1.5"]
    assert {each.tag for each in table.iter()} == {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_heads_are_marked_and_columns_are_aligned():
    text = html_table([["name", "count"], ["weight", 40]])
    assert text.count('scope="col"') == 2
    assert re.findall(r"text-align: (\w+)", text) == ["left", "right", "left", "right"]


def test_no_colour_is_set():
    text = html_table([["a"], ["b"]]) + sparkline([1.0, 2.0], title="t")
    assert not re.search(r"(?<!-)color:|background|fill=\"(?!none)|#[0-9a-f]{3}", text)
    assert "currentColor" in text


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([1.0, 0.5, 0.25], 1),
        ([1.0, 0.5, math.nan, 0.5, 0.25], 2),
        ([math.inf, 1.0, 1.0], 1),
        ([1.0, math.nan, 1.0], 0),
    ],
)
def test_a_value_that_is_not_finite_leaves_a_gap(values, lines):
    curve = ET.fromstring(sparkline(values, title="<loss>"))
    assert len(curve.findall("polyline")) == lines
    assert curve.find("title").text == "<loss>"
    numbers = [float(n) for line in curve.findall("polyline") for n in re.split("[ ,]", line.get("points"))]
    assert all(0 <= n <= 240 for n in numbers)


@pytest.mark.parametrize("values", [[], [1.0], [math.nan, 1.0], [math.inf] * 3])
def test_one_value_is_no_curve(values):
    assert sparkline(values, title="loss") == ""
