"""The report page: its structure, its escapes, its size, and its colours."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import BAD, hostile, run_of

from mlx_fp.page._page import page
from mlx_fp.page._style import _DARK, _LIGHT, COLOURS

VOID = {"meta", "link", "br", "img"}


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    return reader


@pytest.mark.without_mlx
@pytest.mark.parametrize("bundles", [[run_of()], [run_of(), run_of(rate=0.2)], [hostile()], [{"rows": []}]])
def test_a_page_is_whole_and_needs_nothing_else(bundles):
    text = page(bundles)
    reader = read(text)
    assert not {tag for tag, _ in reader.seen} & {"script", "img", "iframe", "object", "form"}
    addresses = [a for _, attrs in reader.seen for name in ("src", "href", "srcset") if (a := attrs.get(name))]
    assert addresses == ["data:,"]
    assert not re.search(r"url\(|@import|@font-face|https?:", text)


@pytest.mark.without_mlx
def test_a_page_is_accessible():
    seen = read(page([run_of()])).seen
    assert ("html", {"lang": "en"}) in seen
    levels = [int(tag[1]) for tag, _ in seen if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in seen if tag == "th")
    assert len([tag for tag, _ in seen if tag == "table"]) == len([tag for tag, _ in seen if tag == "caption"]) > 3
    charts = [attrs for tag, attrs in seen if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert charts
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in charts)


@pytest.mark.without_mlx
def test_the_verdict_comes_first():
    text = page([run_of()])
    for words in ("Stopped", "no improvement in 3 evaluations", "Best", "0.8000"):
        assert text.index(words, text.index("<h1")) < text.index("<h2"), words


@pytest.mark.without_mlx
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stop_reason": "SIGINT", "stopped_early": True}, "Ctrl-C (SIGINT)"),
        ({"stopped_early": False, "epochs_target": 3, "epochs_completed": 3}, "3 of 3 epochs"),
        ({"stopped_early": False, "epochs_target": 9, "epochs_completed": 3}, "Not complete"),
        ({"stopped_early": False, "steps_target": 30, "epochs_target": None}, "30 of 30 steps"),
        ({"epochs_completed": 2}, "The last epoch was cut"),
        ({"resume_from": "runs/a.safetensors", "resumed_from_epoch": 1}, "Resumed not exactly from"),
    ],
)
def test_the_verdict_tells_how_a_run_ended(fields, words):
    bundle = run_of()
    assert words in page([{**bundle, "report": {**bundle["report"], **fields}}])


@pytest.mark.without_mlx
def test_settings_that_differ_from_their_defaults_are_marked():
    text = page([run_of()])
    marked = re.findall(r'<tr class="marked"><th scope="row" dir="auto">([^<]*)</th>', text)
    assert [name for name in marked if name in ("epochs", "seed", "sync")] == ["epochs"]


@pytest.mark.without_mlx
def test_names_stay_text_and_figures_that_are_not_finite_are_shown():
    reader = read(page([hostile()], title=BAD))
    assert "".join(reader.text).count(BAD) > 5
    for words in ("inf", "-inf", "nan", "שלום"):
        assert any(words in text for text in reader.text), words


@pytest.mark.without_mlx
@given(st.text(max_size=30))
def test_any_text_is_a_name(name):
    rows = [{"epoch": 0, "steps": 1, "loss": 1.0, name: 0.5, f"val_{name}": float("nan")}]
    report = {"rows": rows, "monitor_name": name, "stop_reason": name, "checkpoints": [name], "best_value": 1.0}
    read(page([{"report": report, "settings": {name: name}, "user": {name: [name]}}], title=name))


@pytest.mark.without_mlx
def test_several_runs_stand_in_the_order_of_the_monitor():
    runs = [run_of(rate=rate, best=best) for rate, best in ((0.1, 0.5), (0.2, 0.9), (0.3, None), (0.4, 0.7))]
    text = page(runs)
    assert re.findall(r"<bdi>(\d) · rate=[\d.]+</bdi></th>", text) == ["2", "4", "1", "3"]
    assert "The best run" in text


@pytest.mark.without_mlx
def test_many_runs_and_many_epochs_stay_small():
    runs = [run_of(rate=rate, epochs=40) for rate in range(200)]
    assert len(page(runs)) < 1_500_000
    assert len(page([run_of(epochs=5_000)])) < 500_000


@pytest.mark.without_mlx
def test_a_page_without_runs_is_an_error():
    with pytest.raises(ValueError, match="one run or more"):
        page([])


@pytest.mark.without_mlx
def test_each_validation_set_has_a_colour_of_its_own():
    bundle = run_of()
    for each in bundle["report"]["evaluations"]:
        each |= {"val_loss": None, "val_accuracy": None, "val_easy_loss": 0.5, "val_hard_loss": 0.9}
    bundle["report"]["setup"]["validation"] = {"easy": "data", "hard": "data"}
    keys = dict(re.findall(r'<path class="line (c\d) [^>]*></svg><bdi>validation (\w+)<', page([bundle])))
    assert keys == {"c1": "easy", "c2": "hard"}


@pytest.mark.without_mlx
def test_a_run_without_epochs_has_no_last_loss():
    bundle = run_of()
    bundle["report"] |= {"rows": [], "evaluations": [], "steps": []}
    assert "last loss" not in page([bundle])


def colours(text):
    found = dict(re.findall(r"--(\w+):#([0-9a-f]+)", text))
    return {name: value if len(value) == 6 else "".join(c * 2 for c in value) for name, value in found.items()}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.without_mlx
@pytest.mark.parametrize("palette", [_LIGHT, _DARK])
def test_text_and_lines_have_contrast(palette):
    found = colours(palette)
    for ground in ("paper", "card", "mark", "tint"):
        for text in ("ink", "soft", "good", "bad"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    for number in range(COLOURS):
        assert contrast(found[f"c{number}"], found["card"]) >= 3
