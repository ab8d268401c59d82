"""One item after each operation of a pipeline."""

import mlx.core as mx
import pytest
from toolz import pipe

from mlx_fp import data

ROWS = data.arrays(x=mx.zeros((100, 3)), y=mx.zeros((100,), mx.int32))


def stages(dataset):
    return [(stage.operation, stage.items, stage.item) for stage in data.explain(dataset).stages]


def test_a_row_for_each_operation_with_shapes_dtypes_and_counts():
    dataset = pipe(
        ROWS, data.shuffle(seed=0), data.batch(32), data.map(lambda batch: (batch["x"].astype(mx.float16), 1))
    )
    assert stages(dataset) == [
        ("arrays(x=(100, 3), y=(100,))", 100, "{x: float32 (3,), y: int32 ()}"),
        ("shuffle(seed=0)", 100, "{x: float32 (3,), y: int32 ()}"),
        ("batch(32)", 4, "{x: float32 (32, 3), y: int32 (32,)}"),
        ("map(<lambda>)", 4, "(float16 (32, 3), int)"),
    ]


def test_a_number_of_items_that_only_reading_tells_is_a_question_mark():
    dataset = pipe(data.stream(lambda: iter([{"n": 1, "word": "abc"}] * 3)), data.filter(lambda row: True))
    assert [items for _, items, _ in stages(dataset)] == [None, None]
    assert str(data.explain(dataset)).splitlines()[1].split()[1] == "?"


def test_an_operation_that_makes_a_source_keeps_the_stages_before_it():
    dataset = pipe(data.source(range(10)), data.map(lambda n: {"n": n}), data.cache(), data.batch(4, stack=list))
    assert [operation for operation, *_ in stages(dataset)] == [
        "source(range of 10)",
        "map(<lambda>)",
        "cache()",
        "batch(4, stack=list)",
    ]
    assert stages(dataset)[-1] == ("batch(4, stack=list)", 3, "list of 4, the first {n: int}")


def test_the_inputs_of_a_combination_come_before_it():
    found = stages(data.batch(2)(data.zip(data.source(range(4)), data.map(str)(data.source(range(4))))))
    assert [operation.partition("(")[0] for operation, *_ in found] == ["  source", "  source", "  map", "zip", "batch"]
    assert found[3][2] == "(int, str of 1)"


@pytest.mark.parametrize("late", [data.batch(8), data.prefetch(2)])
def test_an_error_is_in_the_row_of_its_operation_and_the_last(late):
    found = stages(pipe(ROWS, data.map(lambda row: row["z"]), late))
    assert [item for *_, item in found] == ["{x: float32 (3,), y: int32 ()}", "KeyError: 'z'"]


def test_other_data_and_empty_data():
    assert stages([1, 2]) == [("source(list of 2)", 2, "int")]
    assert stages([]) == [("source(list of 0)", 0, "no item")]
    with pytest.raises(TypeError):
        data.explain(5)


def test_only_the_first_items_are_read():
    read = []
    data.explain(pipe(data.source(range(1000)), data.tap(read.append), data.batch(4)))
    assert len(read) <= 8


def test_a_notebook_shows_tables_with_texts_escaped():
    dataset = data.map(lambda n: {"<b>": n})(data.source(range(3)))
    page = data.explain(dataset)._repr_html_()
    assert "{&lt;b&gt;: int}" in page
    assert "<b>" not in page
    page = dataset._repr_html_()
    assert "map(&lt;lambda&gt;)" in page
    assert page.count("<tr") == 3


def test_a_dataset_shows_itself_without_being_read():
    read = []
    assert "stream" in data.tap(read.append)(data.stream(lambda: read.append(1) or iter([])))._repr_html_()
    assert read == []
