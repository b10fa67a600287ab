"""Is one model better than another? Intervals that hold what they promise."""

from dataclasses import replace

import numpy as np
import pytest
from metric_cases import random_case

from yolo_cli.evaluation.comparison import bootstrap, compare, difference, verdict
from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.evaluation.weighted_ap import WeightedAP


def noisy(data: EvalData, seed: int, amount: float) -> EvalData:
    """The same predictions with confidences disturbed, and some lost."""
    random = np.random.default_rng(seed)
    confidence = data.predictions.confidence + random.normal(0, amount, len(data.predictions.confidence))
    return replace(data, predictions=replace(data.predictions, confidence=confidence))


@pytest.fixture(scope="module")
def data() -> EvalData:
    return random_case(0, images=60, classes=3, max_ground_truth=5, max_predictions=12, ties=False).evaluator().state()


def test_a_model_is_not_better_than_itself(data: EvalData) -> None:
    one = WeightedAP(data, 3)
    result = compare(bootstrap([[one], [one]], resamples=50))
    found = result[1].differences["mAP_0.5:0.95"]
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert not found.is_shown
    assert found.images_needed(60) is None


def test_on_one_image_nothing_is_shown() -> None:
    one = random_case(1, images=1, classes=1, max_ground_truth=5, max_predictions=12, ties=False).evaluator().state()
    p = one.predictions
    nothing = Predictions(p.image[:0], p.class_id[:0], p.xywh[:0], p.confidence[:0])
    pair = [[WeightedAP(replace(one, predictions=nothing), 1)], [WeightedAP(one, 1)]]
    found = compare(bootstrap(pair, resamples=50))[1].differences["mAP_0.5"]
    assert not found.is_shown
    assert "too few images" in verdict("b", "a", found, 1)


def test_a_clear_gain_is_shown_and_a_swap_turns_its_sign(data: EvalData) -> None:
    gt = data.ground_truth
    found = Predictions(gt.image, gt.class_id, gt.xywh, np.linspace(1, 0.5, len(gt.image)))
    perfect, worse = WeightedAP(replace(data, predictions=found), 3), WeightedAP(noisy(data, 1, 1.0), 3)
    up = compare(bootstrap([[worse], [perfect]], resamples=200))[1].differences["mAP_0.5"]
    down = compare(bootstrap([[perfect], [worse]], resamples=200))[1].differences["mAP_0.5"]
    assert up.low > 0
    assert up.is_shown
    assert (down.value, down.low, down.high) == pytest.approx((-up.value, -up.high, -up.low))
    assert compare(bootstrap([[perfect]], resamples=2))[0].differences == {}


def test_results_do_not_depend_on_threads_and_follow_the_seed(data: EvalData) -> None:
    pair = [[WeightedAP(data, 3)], [WeightedAP(noisy(data, 2, 0.2), 3)]]
    one = bootstrap(pair, resamples=40, threads=1)
    np.testing.assert_array_equal(one.samples, bootstrap(pair, resamples=40, threads=3).samples)
    assert not np.array_equal(one.samples, bootstrap(pair, resamples=40, seed=1).samples, equal_nan=True)


def test_seeds_of_a_recipe_widen_the_interval(data: EvalData) -> None:
    runs = [WeightedAP(noisy(data, seed, 0.6), 3) for seed in range(4)]
    base = WeightedAP(data, 3)
    spread = compare(bootstrap([[base], runs], resamples=300))[1]
    alone = compare(bootstrap([[base], runs[:1]], resamples=300))[1]
    values = [compare(bootstrap([[run]], resamples=2))[0].scores["mAP_0.5"].value for run in runs]
    assert spread.scores["mAP_0.5"].value == pytest.approx(np.mean(values))
    assert spread.differences["mAP_0.5"].value != alone.differences["mAP_0.5"].value


def test_runs_on_different_images_are_refused(data: EvalData) -> None:
    other = random_case(1, images=5, classes=3).evaluator().state()
    with pytest.raises(ValueError, match="different images"):
        bootstrap([[WeightedAP(data, 3)], [WeightedAP(other, 3)]])


def test_images_needed_falls_with_the_square_of_the_difference() -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, 4000)
    small, large = difference(0.01, samples), difference(0.02, samples)
    assert small.images_needed(100) == pytest.approx(4 * large.images_needed(100), abs=4)
    assert large.is_shown
    assert not difference(0.01, samples).is_shown


@pytest.mark.slow
def test_a_model_is_seldom_told_apart_from_itself() -> None:
    """Two jittered copies of the same predictions, on images of their own each time: 5% false alarms are intended.

    With 5%, more than 10 of 100 have a probability of 1%. benchmarks/comparison.py has more comparisons, on real
    predictions.
    """
    flagged = 0
    for number in range(100):
        images = {"images": 40, "classes": 2, "max_ground_truth": 5, "max_predictions": 12, "ties": False}
        data = random_case(100 + number, **images).evaluator().state()
        pair = [[WeightedAP(noisy(data, seed, 0.1), 2)] for seed in (2 * number, 2 * number + 1)]
        found = compare(bootstrap(pair, resamples=200, seed=number))[1].differences["mAP_0.5:0.95"]
        flagged += found.is_shown
    assert flagged <= 10
