"""Counts of bytes as text and from text."""

from __future__ import annotations

import pytest

from mlx_fp.core import _bytes
from mlx_fp.core._bytes import as_bytes, bytes_text, device_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("12 B", 12), ("2kb", 2000), ("1.5 MB", 1_500_000), ("3 KiB", 3072), ("0.5GiB", 1 << 29), (7, 7)],
)
def test_a_text_is_read_with_its_unit(text, count):
    assert as_bytes(text, "limit") == count


@pytest.mark.parametrize("bad", ["", "GB", "8 XB", "-3 GB", "0", 0, -1, True, 1.5, None])
def test_anything_else_is_refused_by_name(bad):
    with pytest.raises(ValueError, match="limit is a number of bytes above 0"):
        as_bytes(bad, "limit")


def test_counts_are_written_in_their_largest_unit():
    assert [bytes_text(n) for n in (0, 999, 1000, 12_345_678, 2e12)] == ["0 B", "999 B", "1 KB", "12.3 MB", "2 TB"]


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit, unlimited = tmp_path / "max", tmp_path / "unlimited"
    limit.write_text("1000000\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(_bytes, "_CONTAINER_LIMITS", (str(limit), str(unlimited), str(tmp_path / "none")))
    monkeypatch.setattr(_bytes.mx, "device_info", dict)
    assert device_bytes() == 1_000_000
    monkeypatch.setattr(_bytes.mx, "device_info", lambda: {"max_recommended_working_set_size": 5})
    assert device_bytes() == 5
