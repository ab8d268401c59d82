"""The commands of docs/command_line.md run as they are printed, in their order."""

from __future__ import annotations

import re
import shlex

from commands import called
from helpers import ROOT

PAGE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (over,) = blocks("toml")
    (tmp_path / "over.toml").write_text(over)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) > 9
    for line in commands:
        program, *words = shlex.split(line)
        ended = called(*words)
        assert (program, ended.status, ended.errors) == ("mlx-fp", 0, []), line
        assert ended.lines, line


def test_the_table_has_every_command():
    named = re.findall(r"^\| `(\w+)", PAGE, re.M)
    assert set(named) == {"run", "settings", "check", "sweep", "bench", "runs", "compare", "report", "show", "new"}
