"""Slices, calibration and intervals against counts by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.evaluations import data_of
from yolo_cli.report.calibration import BINS, calibrate
from yolo_cli.report.intervals import Proportion
from yolo_cli.report.slices import Slice, find_slices
from yolo_cli.report.tide import find_errors

SMALL = (50.0, 50.0, 10.0, 10.0)
LARGE = (0.0, 0.0, 98.0, 99.0)
WIDE = (60.0, 40.0, 80.0, 30.0)


def by_name(slices: list[Slice]) -> dict[str, Slice]:
    return {f"{each.group} {each.label.split(':')[0]}": each for each in slices}


def test_slices_of_boxes_counted_by_hand() -> None:
    truth = [(0, 0, SMALL), (0, 0, LARGE), (1, 0, WIDE), (1, 0, SMALL)]
    found = [(0, 0, LARGE, 0.9), (1, 0, WIDE, 0.8), (1, 0, SMALL, 0.1), (0, 0, (150.0, 5.0, 9.0, 9.0), 0.7)]
    data = data_of(truth, found, images=2)
    slices = by_name(find_slices(data, find_errors(data, 1), 0.5, np.array([0.1, 0.5])))
    small = slices["size small"]
    assert (small.recall, small.recall_any) == (Proportion(0, 2), Proportion(1, 2))
    assert small.precision == Proportion(0, 1)
    assert small.missed.tolist() == [True, False, False, True]
    assert slices["size large"].recall == Proportion(1, 1)
    assert slices["aspect wide"].recall == Proportion(1, 1)
    assert slices["aspect tall"].recall == Proportion(0, 0)
    assert slices["position at the image border"].recall == Proportion(1, 1)
    assert slices["position inside the image"].recall == Proportion(1, 3)
    assert slices["brightness dark image"].recall == Proportion(1, 2)
    assert slices["brightness mean from 0.3 to 0.6"].precision == Proportion(1, 1)


def test_crowding_is_the_overlap_with_another_box() -> None:
    other = (50.0, 50.0, 10.0, 5.0)  # IoU 0.5 with SMALL
    touching = (150.0, 50.0, 10.0, 10.0), (158.0, 50.0, 10.0, 10.0)  # IoU 1/9
    alone = (5.0, 5.0, 10.0, 10.0)
    data = data_of([(0, i % 2, box) for i, box in enumerate((SMALL, other, *touching, alone))], [])
    slices = by_name(find_slices(data, find_errors(data, 2), 0.5, np.array([math.nan])))
    counts = {name: s.recall.count for name, s in slices.items() if name.startswith("crowding")}
    assert list(counts.values()) == [1, 2, 2]
    assert not [name for name in slices if name.startswith("brightness")]
    assert all(s.precision is None for name, s in slices.items() if name.startswith("crowding"))


def test_slices_of_a_group_have_every_box_once() -> None:
    random = np.random.default_rng(1)
    truth = [(int(i), 0, tuple(random.uniform(1, 90, 4).tolist())) for i in random.integers(0, 4, 60)]
    data = data_of(truth, [], images=4)
    totals: dict[str, int] = {}
    for each in find_slices(data, find_errors(data, 1), 0.5, random.uniform(0, 1, 4)):
        totals[each.group] = totals.get(each.group, 0) + each.recall.count
    assert totals == dict.fromkeys(("size", "aspect", "position", "crowding", "brightness"), 60)


def test_calibration_counted_by_hand() -> None:
    confidence = [0.96, 0.97, 0.55, 0.55, 0.2]
    found = [(i, 0, SMALL if i != 3 else LARGE, c) for i, c in enumerate(confidence)]
    data = data_of([(i, 0, SMALL) for i in range(5)], found, images=5)
    result = calibrate(data.predictions.confidence, find_errors(data, 1), 0.5)
    assert len(result.bins) == BINS
    assert (result.bins[0].low, result.bins[-1].high) == (0.5, 1.0)
    assert result.bins[1].precision == Proportion(1, 2)
    assert result.bins[1].wrong.tolist() == [False, False, False, True, False]
    assert result.bins[-1].precision == Proportion(2, 2)
    assert result.bins[-1].confidence == pytest.approx(0.965)
    assert sum(each.precision.count for each in result.bins) == 4  # the one below the threshold does not count
    assert result.error == pytest.approx((2 * 0.05 + 2 * 0.035) / 4)


def test_calibration_without_predictions() -> None:
    data = data_of([(0, 0, SMALL)], [])
    assert math.isnan(calibrate(data.predictions.confidence, find_errors(data, 1), 0.3).error)


def test_wilson_interval_of_textbook_cases() -> None:
    assert Proportion(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert Proportion(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, 1998
    assert all(map(math.isnan, Proportion(0, 0).interval))


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_proportion(count: int, data: st.DataObject) -> None:
    proportion = Proportion(data.draw(st.integers(0, count)), count)
    low, high = proportion.interval
    assert 0 <= low <= proportion.value + 1e-12
    assert proportion.value - 1e-12 <= high <= 1
