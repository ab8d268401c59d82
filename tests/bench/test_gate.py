"""The regression gate of the benchmarks: what it decides on two results."""

from __future__ import annotations

import json

import pytest
from suite import gate, measure, results

REFERENCE = (1.0, 1.0, 1.0)


def result(ours, control=REFERENCE, case="gpt", **more):
    """A result of one case: ratios of ours and of the control, or a reason why there are none."""
    rows = {"raw": REFERENCE, "control": control, "ours": ours, **more}
    made = [
        {"case": case, "mode": "train", "variant": name, **({"reason": r} if isinstance(r, str) else {"ratio": r})}
        for name, r in rows.items()
    ]
    return {"schema": results.SCHEMA, "rows": made}


def decided(baseline, now, **options):
    (found,) = gate.compare(baseline, now, **options)
    return found


BASELINE = result((0.58, 0.60, 0.62))


def test_the_same_ratio_is_no_regression():
    found = decided(BASELINE, BASELINE)
    assert (found.verdict, found.failed) == ("ok", False)
    assert (found.case, found.mode, found.variant) == ("gpt", "train", "ours")


def test_a_worse_ratio_is_one():
    found = decided(BASELINE, result((0.68, 0.70, 0.72)))
    assert (found.verdict, found.failed) == ("slower", True)
    assert found.limit == pytest.approx(0.60 * 1.05)


def test_a_better_ratio_is_told_and_does_not_fail():
    found = decided(BASELINE, result((0.48, 0.50, 0.52)))
    assert (found.verdict, found.failed) == ("faster", False)


def test_a_median_beyond_the_limit_is_forgiven_where_a_quarter_of_the_turns_is_not():
    assert decided(BASELINE, result((0.62, 0.70, 0.80))).verdict == "ok"


def test_a_baseline_with_a_wide_spread_forgives_as_much():
    wide = result((0.50, 0.60, 0.70))
    assert decided(wide, result((0.68, 0.70, 0.72))).verdict == "ok"
    assert decided(wide, result((0.71, 0.72, 0.73))).verdict == "slower"


def test_the_tolerance_is_an_option():
    slower = result((0.68, 0.70, 0.72))
    assert decided(BASELINE, slower, tolerance=0.2).verdict == "ok"
    assert decided(BASELINE, result((0.625, 0.63, 0.64)), tolerance=0.0).verdict == "slower"


def test_what_the_control_is_off_by_is_forgiven_up_to_a_tenth():
    slower = (0.66, 0.67, 0.68)
    assert decided(BASELINE, result(slower)).verdict == "slower"
    assert decided(BASELINE, result(slower, control=(1.05, 1.08, 1.1))).verdict == "ok"
    assert decided(BASELINE, result((0.80, 0.82, 0.84), control=(1.4, 1.5, 1.6))).verdict == "slower"
    assert decided(BASELINE, result(slower, control="not installed: mlx")).verdict == "slower"


def test_a_row_that_is_gone_fails_with_its_reason():
    found = decided(BASELINE, result("ended with status -11: without a word"))
    assert (found.verdict, found.failed) == ("missing", True)
    assert "-11" in found.reason


def test_a_row_that_the_baseline_lacks_is_new_and_one_not_asked_for_is_left_out():
    now = result((0.9, 1.0, 1.1), case="rnn")
    assert [(v.case, v.verdict, v.failed) for v in gate.compare(BASELINE, now)] == [("rnn", "new", False)]
    assert decided(result("no reference"), BASELINE).verdict == "new"


def test_every_variant_but_reference_and_control_is_judged():
    before, now = result((0.5, 0.5, 0.5), native=(0.4, 0.4, 0.4)), result((0.5, 0.5, 0.5), native=(0.5, 0.5, 0.5))
    assert {v.variant: v.verdict for v in gate.compare(before, now)} == {"ours": "ok", "native": "slower"}


def test_times_do_not_count():
    now = json.loads(json.dumps(BASELINE))
    for row in now["rows"]:
        row["seconds"] = [9.0, 9.0, 9.0]
    assert decided(BASELINE, now).verdict == "ok"


def test_a_result_comes_back_from_its_file(tmp_path):
    results.write(tmp_path / "a.json", result((1 / 3, 0.5, 2 / 3)))
    found = results.read(tmp_path / "a.json")
    assert results.by_key(found)["gpt", "train", "ours"]["ratio"] == [0.3333, 0.5, 0.6667]


def test_a_file_that_is_no_result_is_told(tmp_path):
    with pytest.raises(SystemExit, match="make bench-baseline"):
        results.read(tmp_path / "none.json")
    (tmp_path / "old.json").write_text('{"schema": 0}', encoding="utf-8")
    with pytest.raises(SystemExit, match="schema 0"):
        results.read(tmp_path / "old.json")


def test_numbers_are_compared_relative_above_one():
    assert measure.distance([1.0, 100.0], [1.001, 100.0]) == pytest.approx(1e-3, rel=0.01)
    assert measure.distance([0.0, 100.1], [0.0, 100.0]) == pytest.approx(1e-3)
    assert measure.distance([float("nan")], [1.0]) == float("inf")
    assert measure.distance([1.0], [1.0, 2.0]) == float("inf")
