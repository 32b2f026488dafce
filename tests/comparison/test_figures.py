"""Axes of figures."""

import pytest

from medjax.comparison.figures import Point, Series, lines, scatter


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((16, 64, 256, 512), ["16", "64", "256", "512"]),
        ((2_457_600, 4_915_200), ["2.46M", "4.92M"]),
        ((1e15, 3.9e17), ["1P", "390P"]),
    ],
)
def test_few_values_are_labelled_themselves(values, labels):
    (axes,) = lines([Series("one", [Point(x, 1.0) for x in values])], "x", "y").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert list(axes.get_xticks()) == list(values)


def test_a_short_axis_is_labelled_evenly():
    (axes,) = lines([Series("one", [Point(x, 1.0) for x in (100, 101)])], "x", "y").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "100.5", "101"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.0141, 0.083), ["0.015", "0.02", "0.03", "0.05", "0.07"]),
        ((30, 3000), ["50", "100", "200", "500", "1k", "2k"]),
        ((0.00182, 0.00248), ["0.0018", "0.002", "0.0022", "0.0024"]),
        ((2e9, 5e14), ["10G", "100G", "1T", "10T", "100T"]),
    ],
)
def test_costs_have_round_ticks(values, labels):
    points = [Series(str(x), [Point(x, 1.0)]) for x in values]
    (axes,) = scatter(points, [], "x", "y").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
