"""Charts: ticks, ranges, gaps and text."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.report.charts import Chart, Series, svg, value_range


def chart(**options: object) -> Chart:
    points = [(0.0, 0.0), (0.5, math.nan), (0.6, 0.5), (1.0, 1.0)]
    return Chart("<t>", "<x>", "<y>", (0.0, 1.0), (0.0, 1.0), [Series("<s>", points)], **options)  # type: ignore[arg-type]


def ticks(text: str, anchor: str) -> list[str]:
    return re.findall(rf'text-anchor="{anchor}">([\d.e-]+)<', text)


def test_text_is_escaped_and_a_gap_interrupts_the_line() -> None:
    text = str(svg(chart()))
    assert "<x>" not in text
    assert "&lt;x&gt;" in text
    assert text.count("nan") == 0
    line = re.findall(r'class="s1" d="([^"]*)"', text)[0]
    assert re.sub(r"[\d. ]", "", line) == "MML"


@pytest.mark.parametrize(
    ("limits", "whole", "expected"),
    [
        ((0.0, 1.0), False, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ((1.0, 4.0), True, ["1", "2", "3", "4"]),
        ((1.0, 2.0), True, ["1", "2"]),
        ((1.0, 300.0), True, ["100", "200", "300"]),
        ((0.0, 0.012), False, ["0", "0.0025", "0.005", "0.0075", "0.01"]),
    ],
)
def test_ticks_are_round_numbers(limits: tuple[float, float], whole: bool, expected: list[str]) -> None:
    text = str(svg(Chart("", "", "", limits, (0.0, 1.0), [], whole_x=whole)))
    assert ticks(text, "middle") == expected


@given(st.floats(1e-6, 1e6))
def test_a_range_holds_all_values_and_is_not_much_larger(top: float) -> None:
    low, high = value_range([0.0, top, math.nan])
    assert low == 0
    assert top <= high * (1 + 1e-9)
    assert high <= 1.5 * top * (1 + 1e-9)


def test_ranges_without_values() -> None:
    assert value_range([]) == value_range([math.nan]) == value_range([0.0, 0.0]) == (0.0, 1.0)


def test_many_points_are_thinned_and_keep_their_ends() -> None:
    points = [(i / 5000, 0.5) for i in range(5001)]
    text = str(svg(Chart("", "", "", (0.0, 1.0), (0.0, 1.0), [Series("", points)])))
    line = re.findall(r'class="s1" d="([^"]*)"', text)[0]
    assert 50 < line.count("L") < 130
    assert line.split("L")[-1].startswith("410.0")
