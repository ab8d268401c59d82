"""The worker processes of the benchmarks: they answer with numbers, and a failure is a row with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from suite import cases, measure, ops, options, pairs, pool, variants
from suite.worker import CHECKED

RAW, OURS = variants.NAMED["raw"], variants.NAMED["ours"]
ABSENT = variants.Variant("absent", "a framework that is not here", "run_absent", "any")
CASE = cases.named("mlp_tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("weights")
    measure.weights(made, [CASE], 1)
    return made


def asked(monkeypatch, **environment):
    for name in ("CASES", "MODES", "VARIANTS", "TURNS", "SECONDS", "THREADS"):
        monkeypatch.delenv(f"BENCH_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(f"BENCH_{name}", value)
    return options.from_environment()


@pytest.mark.slow
def test_variants_take_turns_and_one_that_is_absent_is_a_row_with_its_reason(folder, monkeypatch):
    wanted = asked(monkeypatch, TURNS="3")
    with pool.Pool((RAW, OURS, ABSENT), folder, 1) as workers:
        rows = {row["variant"]: row for row in measure.measure(CASE, "train", workers, wanted)}
        assert {"mlx", "mlx_fp"} <= set(workers.versions)
    assert rows["raw"]["ratio"] == (1.0, 1.0, 1.0)
    assert rows["ours"]["turns"] == 3
    assert 0 < rows["ours"]["seconds"][0] <= rows["ours"]["seconds"][1] <= rows["ours"]["seconds"][2]
    assert rows["absent"]["reason"] == "not installed: suite.run_absent"


def test_a_worker_that_dies_is_told_and_another_takes_its_place(folder):
    with pool.Pool((RAW,), folder, 1) as workers:
        first = workers.worker(RAW)
        with pytest.raises(pool.Failed, match="TypeError"):
            first.ask(do="run", calls=1)  # nothing is prepared: the worker says so, and lives
        assert first.alive
        first._process.kill()
        with pytest.raises(pool.Failed, match="ended with status -9"):
            first.ask(do="run", calls=1)
        second = workers.worker(RAW)
        assert second is not first
        assert len(second.ask(do="prepare", case=CASE.name, mode="forward")["numbers"]) == CHECKED + 1


def test_other_numbers_than_the_references_are_no_result(folder, monkeypatch):
    wanted = replace(asked(monkeypatch), turns=1)

    class Liar:
        variants, named = (RAW, OURS), {"raw": RAW, "ours": OURS}

        def worker(self, variant):
            return Answers(1.0 if variant is RAW else 1.1)

    class Answers:
        def __init__(self, number):
            self.number = number

        def send(self, **order):
            pass

        def receive(self):
            return {"numbers": [self.number]}

        def ask(self, **order):
            return {"seconds": 0.1}

    rows = {row["variant"]: row for row in measure.measure(CASE, "train", Liar(), wanted)}
    assert rows["ours"]["reason"].startswith("other numbers than the reference")
    assert rows["raw"]["seconds"] == (0.1, 0.1, 0.1)


def test_a_pair_has_a_reference_of_its_own_and_no_other_variant_runs_it(folder, monkeypatch):
    wanted = asked(monkeypatch, TURNS="1")
    with pool.Pool((RAW, OURS, ABSENT), folder, 1) as workers:
        for name in ("accumulate", "across", "members"):
            rows = measure.measure(cases.named(name), "train", workers, wanted)
            assert [row["variant"] for row in rows] == ["raw", "ours"]
            assert all("ratio" in row for row in rows), rows


def test_packed_rows_have_the_loss_of_the_padded_rows_of_mlx_lm():
    sizes = {"rows": 8, "batch": 4, "length": 64, "vocabulary": 64, "dims": 32, "layers": 1}
    case = cases.Case("packed", "pair", tuple(sizes.items()))
    reference, ours = (pairs.prepare(way, case) for way in ("compiled", "ours"))
    assert measure.distance([ours().item()], [reference().item()]) < measure.TOLERANCE
    assert min(ours.seconds, reference.seconds) > 0


def test_a_pair_whose_bits_differ_is_no_result(monkeypatch):
    across = cases.named("across")
    assert across.exact
    assert "forward" not in across.modes
    monkeypatch.setattr(measure, "_prepared", lambda *_: {"raw": [1.0], "ours": [1.0 + 1e-9]})
    wanted = replace(asked(monkeypatch), turns=1)
    monkeypatch.setattr(measure, "turns", lambda *_: {"raw": [1.0]})
    *_, row = measure.measure(across, "train", pool.Pool((RAW, OURS), "", 1), wanted)
    assert row["reason"].startswith("other numbers than the reference")


def test_options_come_from_the_environment_too(monkeypatch):
    found = asked(monkeypatch, CASES="gpt,mlp_t*", VARIANTS="ours", TURNS="5", MODES="train")
    assert [case.name for case in found.cases] == ["gpt", "mlp_tiny"]
    assert [variant.name for variant in found.variants] == ["raw", "ours"]  # there is no ratio without the reference
    assert (found.turns, found.modes) == (5, ("train",))
    assert "lifted" not in {variant.name for variant in asked(monkeypatch).variants}


@pytest.mark.parametrize(("name", "value"), [("CASES", "gtp"), ("VARIANTS", "tensorflow"), ("MODES", "backward")])
def test_a_name_that_there_is_not_is_told(monkeypatch, name, value):
    with pytest.raises(SystemExit, match=value):
        asked(monkeypatch, **{name: value})


def test_every_variant_gets_the_same_threads(monkeypatch):
    monkeypatch.setenv("MLX_FP_JIT", "native")
    plain, native = (pool.environment(2, variants.NAMED[name].env) for name in ("ours", "native"))
    assert plain["OMP_NUM_THREADS"] == plain["OPENBLAS_NUM_THREADS"] == native["OMP_NUM_THREADS"] == "2"
    assert ("MLX_FP_JIT" in plain, native["MLX_FP_JIT"]) == (False, "native")


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_every_case_has_a_batch_and_operations(case):
    inputs, target = cases.batch(case)
    assert len({len(array) for array in (*inputs, target)}) == 1
    *_, update = found = ops.ops(case, [(3, 2), (), (4,)])
    assert ops.shapes(update.sizes) == [(3, 2), (), (4,)]
    assert sum(op.kind == "dense" for op in found) >= 1
