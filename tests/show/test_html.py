"""The report page of real runs, in a file, and in a real browser."""

import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlx.core as mx
import pytest
from pages import BAD, hostile, run_of

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.page._page import page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 4


@pytest.fixture(scope="module")
def report():
    trainer = fp.trainer(nn.linear(3, 2), fp.classification(metrics=[fp.accuracy(), fp.metrics.confusion(2)]))
    return fp.fit(BATCHES, validation=BATCHES[:1], epochs=2, log_every=1, quiet=True)(trainer)


def test_a_report_is_one_file(report, tmp_path):
    path = fp.show.html(report, tmp_path / "new" / "run", title="tiny")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "new" / "run.html"
    for words in ('<h1 dir="auto">tiny</h1>', "learning_rate", "val_confusion", "weight 2×3, bias 2", "2 of 2 epochs"):
        assert words in text, words
    for name in ("epochs", "log_every"):
        assert f'<tr class="marked"><th scope="row" dir="auto">{name}</th>' in text


def test_a_report_has_the_layers_of_its_model_and_the_changed_options(report):
    assert report.model["count"] == 8
    assert report.setup.changed == ("epochs", "log_every")


def test_a_bundle_gives_the_page_of_its_run(report, tmp_path):
    bundle = fp.read_bundle(fp.save_bundle(tmp_path / "run.json")(report))
    fp.show.html(bundle, tmp_path / "a.html")
    fp.show.html(report, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_sweep_gives_a_page_of_its_trials(tmp_path):
    optimizer = partial(optim.sgd, 0.1)
    plain = fp.experiment("s", model=nn.linear(3, 2), task=fp.classification(), optimizer=optimizer, data=BATCHES)
    found = fp.sweep({"optimizer.learning_rate": [0.01, 0.1]}, quiet=True)(plain)
    text = fp.show.html(found, tmp_path / "s.html").read_text(encoding="utf-8")
    assert "Comparison of 2 runs" in text
    assert "learning_rate=0.01" in text


@pytest.mark.parametrize("wrong", [3, "run.json", [None]])
def test_a_report_of_another_type_is_an_error(tmp_path, wrong):
    with pytest.raises(TypeError, match="html takes a Report"):
        fp.show.html(wrong, tmp_path / "x.html")
    with pytest.raises(ValueError, match="one run or more"):
        fp.show.html([], tmp_path / "x.html")


def shown(text, folder):
    """Open a page in a browser: return its elements, the console's lines, and the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-gpu")
    command = [BROWSER, "--headless", "--no-sandbox", *quiet, "--enable-logging=stderr", f"--user-data-dir={folder}"]
    try:
        address = f"http://127.0.0.1:{server.server_port}/report.html"
        env = {**os.environ, "HOME": str(folder)}
        run = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, env=env)
    finally:
        server.shutdown()
        server.server_close()
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line], asked


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("bundles", [[hostile()], [run_of(), run_of(rate=0.2)]], ids=["hostile", "several"])
def test_a_browser_shows_a_page_without_a_message_or_a_request(tmp_path, bundles):
    elements, console, asked = shown(page(bundles, title=BAD), tmp_path)
    assert "<h1" in elements
    assert console == []
    assert asked == ["/report.html"]
    assert "<script" not in elements
    assert "<img" not in elements
    assert "<title>changed" not in elements


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
def test_the_browser_test_sees_messages_and_requests(tmp_path):
    text = '<title>x</title><script>console.log("loud")</script><img src="/picture.png">'
    _, console, asked = shown(text, tmp_path)
    assert "loud" in "".join(console)
    assert "/picture.png" in asked
