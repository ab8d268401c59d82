"""The pages about Linux CPUs run as they are printed."""

from __future__ import annotations

import pytest
from helpers import CPU_PAGES, run_snippets


@pytest.mark.parametrize("page", CPU_PAGES, ids=lambda page: page.name)
def test_every_snippet_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_snippets(page) or page.name == "blas.md"


def test_the_pages_about_cpus_are_known():
    assert {page.name for page in CPU_PAGES} >= {"speed.md"}
