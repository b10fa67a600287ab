import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.model.architecture import find_architecture, from_mapping, plan_layers, read_architecture
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.heads import Detect

TINY: dict[str, Any] = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 2, "C3", [8]]],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    mapping = copy.deepcopy(TINY)
    place: Any = mapping
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return mapping


@pytest.mark.parametrize("name", assets.names("models"))
def test_every_shipped_file_is_unchanged_by_writing_and_reading(name: str) -> None:
    architecture = find_architecture(name)
    assert from_mapping(architecture.to_mapping(), name="x", where="x") == architecture


@pytest.mark.parametrize(("short", "full"), [("s", "yolov5s"), ("x6", "yolov5x6"), ("yolov5n.yaml", "yolov5n")])
def test_short_names(short: str, full: str) -> None:
    assert find_architecture(short).name == full


def test_a_path_has_precedence_over_a_shipped_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = assets.find("models", "yolov5n", option="--cfg").read_text().replace("nc: 80", "nc: 7")
    (tmp_path / "mine.yaml").write_text(text)
    assert read_architecture(tmp_path / "mine.yaml").nc == 7


def test_an_unknown_home_folder_is_a_missing_file() -> None:
    with pytest.raises(UserError, match="no such file"):
        find_architecture("~nobody-of-that-name/mine.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("backbone", 0, 2), "Convv", "layer 0: unknown block 'Convv'"),
        (("backbone", 0, 3), [], "layer 0 .Conv.: takes 1 to 6 arguments"),
        (("backbone", 0, 3), ["wide"], "layer 0 .Conv.: channels must be a whole number"),
        (("backbone", 0, 3), [8, 3, 2, None, 3], "groups do not divide"),
        (("backbone", 0, 3), [8, 0], "kernel must be"),
        (("backbone", 1, 0), 5, "layer 1 .C3.: source 5 is not an earlier layer"),
        (("backbone", 1, 0), -7, "not an earlier layer"),
        (("backbone", 1, 1), 0, "number must be a whole number"),
        (("backbone", 1, 1), 10**9, "number must be a whole number"),
        (("backbone", 1), "Conv", "a row must be"),
        (("backbone", 1, 3), [{"a": 1}], "an argument must be"),
        (("backbone",), "x", "backbone must be a list"),
        (("head", 0, 0), [-1, 0], "2 source layers but anchors for 1"),
        (("head", 0, 2), "Conv", "must be a detection head"),
        (("nc",), 0, "nc must be"),
        (("nc",), "80", "nc must be"),
        (("width_multiple",), -1, "width_multiple must be a positive number"),
        (("depth_multiple",), float("nan"), "depth_multiple"),
        (("anchors",), [[1, 2, 3]], "pairs"),
        (("anchors",), [True], "pairs"),
        (("anchors",), [[1, 2], [1, 2, 3, 4]], "same number of anchors"),
        (("anchors",), [], "anchors must be a list"),
        (("activation",), "__import__('os')", "unknown activation"),
    ],
)
def test_an_error_names_its_layer(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        DetectionModel(from_mapping(changed(path, value), name="tiny", where="tiny.yaml"))
    assert "tiny" in str(caught.value)


@pytest.mark.parametrize(
    "row", [[-1, 2000, "Conv", [60000, 3]], [-1, 200, "C3", [65536]], [-1, 1, "SPPCSPC", [65536]]], ids=lambda r: r[2]
)
def test_a_network_that_is_too_large_is_refused_before_it_is_built(row: list[Any]) -> None:
    architecture = from_mapping(changed(("backbone", 1), row), name="huge", where="huge.yaml")
    with pytest.raises(UserError, match=rf"huge.* \({row[2]}\).*more than 1,000,000,000 parameters"):
        DetectionModel(architecture)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[-1, 2000, "Conv", [8]]] * 3, "layer 3 .Conv.: more than 5000 blocks"),
        ([[-1, 100, "C3", [8]]] * 51, "layer 50 .C3.: more than 5000 blocks"),
        ([[[-1] * 4, 1, "Concat", [1]]] * 9, "layer 7 .Concat.: more than 65536 channels"),
        ([[-1, 1, "Conv", [8, 3, 8]]] * 4, "layer 4 .Conv.: its stride must be from 1/16 to 1024, not 8192"),
        (
            [[-1, 1, "Upsample", [None, 16, "nearest"]]] * 2,
            "layer 2 .Upsample.: its stride must be from 1/16 to 1024, not 1/128",
        ),
        ([[-1, 1, "SPP", [8, [1] * 33]]], "layer 1 .SPP.: pool sizes must be a list of 1 to 32"),
    ],
    ids=["repeats", "inner repeats", "channels", "stride", "enlarged", "pools"],
)
def test_what_accumulates_over_layers_is_bounded(rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_mapping(changed(("backbone",), [TINY["backbone"][0], *rows]), name="x", where="x")


def test_published_spellings_are_accepted() -> None:
    """Block names with their module, None as a word, numbers in names of activations."""

    def published(row: list[Any]) -> list[Any]:
        source, number, block, args = row
        module = "nn." if block in ("MaxPool2d", "Upsample", "ZeroPad2d") else ""
        return [source, number, module + block, ["None" if arg is None else arg for arg in args]]

    for name in ("yolov3-tiny", "yolov7-tiny"):
        architecture = find_architecture(name)
        mapping = architecture.to_mapping()
        parts = {part: [published(row) for row in mapping[part]] for part in ("backbone", "head")}
        assert from_mapping(mapping | parts, name=name, where=name) == architecture


def test_an_output_finer_than_the_image_is_refused() -> None:
    mapping = changed(("backbone",), [[-1, 1, "Upsample", [None, 2, "nearest"]]])
    with pytest.raises(UserError, match="whole-number strides"):
        from_mapping(mapping, name="x", where="x")


def test_layers_of_different_size_cannot_be_joined() -> None:
    mapping = changed(("backbone", 1), [[-1, -2], 1, "Concat", [1]])
    with pytest.raises(UserError, match="different strides"):
        from_mapping(mapping, name="x", where="x")


def test_a_missing_part_is_named() -> None:
    mapping = {key: value for key, value in TINY.items() if key != "head"}
    with pytest.raises(UserError, match="lacks head"):
        from_mapping(mapping, name="x", where="x.yaml")


def test_anchors_left_to_be_fitted_follow_the_strides() -> None:
    architecture = from_mapping(changed(("anchors",), 3), name="x", where="x")
    head = plan_layers(architecture)[-1]
    assert len(head.plan.args[1][0]) == 6
    assert all(v > 0 for v in head.plan.args[1][0])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["nc", "anchors", "backbone", "head", "depth_multiple", "activation"]), JUNK)
def test_invalid_content_raises_only_user_errors(key: str, junk: Any) -> None:
    try:
        from_mapping(changed((key,), junk), name="x", where="x")
    except UserError as error:
        assert str(error).startswith("x")


@given(st.sampled_from(sorted(BLOCKS)), st.lists(JUNK, max_size=5), st.sampled_from([-1, [-1], [-1, -1], [-1, -1, -1]]))
def test_invalid_arguments_raise_only_user_errors(block: str, args: list[Any], source: int | list[int]) -> None:
    place = ("head", 0) if issubclass(BLOCKS[block], Detect) else ("backbone", 1)
    try:
        from_mapping(changed(place, [source, 1, block, args]), name="x", where="x")
    except UserError as error:
        assert str(error).startswith("x")
