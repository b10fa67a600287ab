"""The value of `--conf`: a number, `auto`, or thresholds per class."""

import pytest

from yolo_cli.config import DetectConfig, ExportConfig
from yolo_cli.config.thresholds import SavedThresholds, conf_text, is_below, parse_conf, resolve_conf
from yolo_cli.errors import UserError

NAMES = ("person", "car", "salt, pepper", "a=b", "7", "Bus")
SAVED = SavedThresholds(0.3, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "best F1", "the val split of x.yaml (9 images)")


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("0.4", 0.4),
        ("person=0.4,car=0.3", (0.4, 0.3, 0.25, 0.25, 0.25, 0.25)),
        ("0.1,car=.3", (0.1, 0.3, 0.1, 0.1, 0.1, 0.1)),
        ("salt, pepper=0.9,a=b=0.8", (0.25, 0.25, 0.9, 0.8, 0.25, 0.25)),
        ("7=0.9,0=0.8,bus=0.7", (0.8, 0.25, 0.25, 0.25, 0.9, 0.7)),
        ("auto", SAVED.per_class),
        ("auto,car=0.9", (0.1, 0.9, 0.3, 0.4, 0.5, 0.6)),
    ],
)
def test_thresholds_of_a_text(text: str, resolved: object) -> None:
    assert resolve_conf(parse_conf(text), NAMES, SAVED) == resolved


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a confidence"),
        ("high", "is not a confidence"),
        ("person", "is not a confidence"),
        ("person=0.4,", "is not a confidence"),
        ("person=0.4,person=0.9", "names person twice"),
        ("person=2", "from 0 to 1"),
        ("person=nan", "from 0 to 1"),
        ("1.5,person=0.2", "from 0 to 1"),
        ("=0.4", "is not a confidence"),
    ],
)
def test_a_text_without_meaning_is_refused(text: str, message: str) -> None:
    for config in (DetectConfig, ExportConfig):
        with pytest.raises(UserError, match=message):
            config(conf=parse_conf(text))


@pytest.mark.parametrize("conf", [2.0, -0.1, float("nan")])
def test_numbers_out_of_range_are_refused(conf: float) -> None:
    with pytest.raises(UserError, match=r"--conf .*: must be from 0 to 1"):
        DetectConfig(conf=conf)


def test_an_unknown_class_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"no class 'persn'.*did you mean person"):
        resolve_conf("persn=0.4", NAMES, None)
    with pytest.raises(UserError, match=r"no class 'zebra'.*its classes: person, car"):
        resolve_conf("zebra=0.4", NAMES, None)


def test_auto_without_saved_thresholds_names_the_way_to_get_them() -> None:
    with pytest.raises(UserError, match=r"no saved thresholds.*yolo val .*--save-thresholds"):
        resolve_conf("auto", NAMES, None)


def test_saved_thresholds_survive_as_plain_data_and_damaged_ones_are_refused() -> None:
    plain = SAVED.to_mapping()
    assert SavedThresholds.from_mapping(plain, 6) == SAVED
    for bad in (
        None,
        {**plain, "per_class": [0.1]},
        {**plain, "per_class": 6},
        {**plain, "overall": 2},
        {**plain, "overall": "0.3"},
        {**plain, "per_class": [float("nan")] * 6},
        {**plain, "per_class": [True] * 6},
    ):
        with pytest.raises(ValueError, match="threshold"):
            SavedThresholds.from_mapping(bad, 6)


@pytest.mark.parametrize(
    ("conf", "other", "below"),
    [
        (0.2, 0.25, True),
        (0.25, 0.25, False),
        (0.2, (0.1, 0.2), False),
        (0.2, (0.1, 0.3), True),
        ((0.1, 0.3), 0.2, True),
        ((0.1, 0.3), (0.1, 0.3), False),
        ((0.1, 0.3), (0.2, 0.1), True),
    ],
)
def test_thresholds_are_compared_class_by_class(conf: object, other: object, below: bool) -> None:
    assert is_below(conf, other) is below  # type: ignore[arg-type]


def test_thresholds_in_messages() -> None:
    assert conf_text(0.25) == "0.25"
    assert conf_text((0.4, 0.1)) == "0.1 to 0.4 by class"
