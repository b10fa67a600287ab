"""Reading and writing .cfg files, and the errors for those that are wrong."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.write_cfg import cfg_text

# Every kind of section. The tests below refer to line numbers.
FULL = """\
[net]
width=96
height=64
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish

[maxpool]
size=2
stride=2

[convolutional]
filters=8
groups=4
size=3
pad=1
activation=swish

[route]
layers=-1
groups=2
group_id=1

[convolutional]
filters=8
activation=relu

[shortcut]
from=-3
activation=leaky

[maxpool]
size=2
stride=1

[dropout]
probability=.5

[convolutional]
filters=14
activation=linear

[yolo]
mask=1,2
anchors=10,14, 23,27, 37,58
classes=2

[route]
layers=-3

[upsample]
stride=2

[route]
layers=-1, 0

[convolutional]
filters=7
activation=logistic

[yolo]
mask=0
anchors=10,14, 23,27, 37,58
classes=2
scale_x_y=2
new_coords=1
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "net.cfg"
    path.write_text(FULL)
    return path


def test_every_kind_of_section_becomes_a_layer(cfg: Path) -> None:
    network = read_network(cfg)
    model = DetectionModel(network.architecture)
    assert (network.height, network.width) == (64, 96)
    assert (model.strides, model.stride, model.nc) == ((4, 2), 4, 2)
    assert model.anchors_in_pixels() == [[23, 27, 37, 58], [10, 14]]  # uneven masks
    raw = model.eval()(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in raw] == [(2, 2, 16, 24, 7), (2, 1, 32, 48, 7)]
    assert model.decode(raw).shape == (2, 2 * 16 * 24 + 32 * 48, 7)
    assert read_network(cfg).architecture == network.architecture


def test_a_written_cfg_reads_back_as_the_same_network(cfg: Path, tmp_path: Path) -> None:
    first = read_network(cfg).architecture
    (tmp_path / "again.cfg").write_text(cfg_text(first, 64, 96))
    again = read_network(tmp_path / "again.cfg").architecture
    assert again.anchors == first.anchors
    torch.manual_seed(0)
    one, two = DetectionModel(first).eval(), DetectionModel(again).eval()
    two.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(two.decode(two(image)), one.decode(one(image)))


def test_the_number_of_classes_changes_only_the_output_layers(cfg: Path) -> None:
    few, many = (DetectionModel(read_network(cfg).architecture.with_classes(nc)) for nc in (2, 5))
    changed = [k for k, v in many.state_dict().items() if v.shape != few.state_dict()[k].shape]
    assert changed == ["model.8.conv.weight", "model.8.conv.bias", "model.13.conv.weight", "model.13.conv.bias"]


def test_comments_spaces_and_line_ends_do_not_matter(tmp_path: Path, cfg: Path) -> None:
    text = FULL.replace("=", " = ").replace("stride=2", "stride=2 # half").replace("\n", "\r\n")
    (tmp_path / "odd.cfg").write_bytes(b"\xef\xbb\xbf; a comment\r\n" + text.encode())
    odd = read_network(tmp_path / "odd.cfg").architecture
    assert (odd.layers, odd.anchors) == (read_network(cfg).architecture.layers, read_network(cfg).architecture.anchors)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[net]", "[conv]", 1, "begins with .net."),
        ("channels=3", "channels=1", 4, "channels=1 is not supported"),
        ("[dropout]", "[dropblock]", 42, r"unknown section \[dropblock\]"),
        ("activation=mish", "activation=selu", 12, "unknown activation 'selu'; known are leaky, linear"),
        ("stride=2\npad=1", "stride=x\npad=1", 10, "stride must be a number, not 'x'"),
        ("stride=2\npad=1", "stride=0\npad=1", 10, "stride must be a whole number from 1"),
        ("stride=2\npad=1", "stride=1.5\npad=1", 10, "stride must be a whole number from 1"),
        ("stride=2\npad=1", "stride=2", 6, "do not give 1/2 of the input"),
        ("stride=2\npad=1", "stride=2\ndilation=2\npad=1", 11, "dilation=2 is not supported; only dilation=1"),
        ("stride=2\npad=1", "stride 2\npad=1", 10, "neither a .section. nor key=value"),
        ("groups=4", "groups=3", 18, "3 groups do not divide"),
        ("layers=-1\n", "layers=-9\n", 26, "layers -9 is not an earlier layer: this is layer 3"),
        ("layers=-1\n", "layers=3\n", 26, "layers 3 is not an earlier layer"),
        ("layers=-1\n", "layers=7\n", 26, "layers 7 is not an earlier layer"),
        ("layers=-1\n", "\n", 25, r"\[route\] needs layers"),
        ("layers=-1\n", "layers=0.5\n", 26, "must be whole numbers"),
        ("group_id=1", "group_id=2", 28, "group_id must be a whole number from 0 to 1"),
        ("layers=-1, 0", "layers=-1, 1", 60, "have different sizes"),
        ("layers=-1, 0", "layers=-1, 9", 61, "is a \\[yolo\\], whose output cannot be used"),
        ("[route]\nlayers=-3\n\n", "", 54, "cannot use the output of a .yolo."),
        ("from=-3", "from=-30", 35, "from -30 is not an earlier layer"),
        ("probability=.5", "probability=1", 43, "probability must be"),
        ("filters=14", "filters=15", 46, "15 filters, but the .yolo. after it has 2 anchors × .5 . 2 classes."),
        ("mask=1,2", "mask=1,3", 50, "mask 3 is not one of 3 anchors"),
        ("anchors=10,14, 23,27, 37,58\nclasses=2\n\n", "anchors=10,14, 23\nclasses=2\n\n", 51, "pairs of positive"),
        ("classes=2\nscale", "classes=3\nscale", 70, "3 classes, but 2 in the first"),
        ("activation=logistic", "activation=linear", 65, "needs activation=logistic"),
        ("scale_x_y=2", "scale_x_y=-2", 71, "scale_x_y must be above 0"),
    ],
)
def test_errors_in_a_cfg_name_the_line(cfg: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in FULL
    cfg.write_text(FULL.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_network(cfg)
    assert str(caught.value).startswith(f"{cfg}:{line}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with"),
        ("[net]\n[convolutional]\nactivation=linear\n", "no .yolo. section"),
        ("[net]\n[yolo]\nanchors=1,1\n", "must come right after"),
        ("width=3\n", "before the first"),
        ("[net]\n" + "[dropout]\n" * 2001 + "[yolo]\nanchors=1,1", "at most 2000"),
    ],
)
def test_a_cfg_that_is_no_detector_is_refused(cfg: Path, text: str, message: str) -> None:
    cfg.write_text(text)
    with pytest.raises(UserError, match=message):
        read_network(cfg)


def test_an_absurd_size_is_refused_before_memory_is_allocated(cfg: Path) -> None:
    wide = "[convolutional]\nfilters=65536\nactivation=linear\n" * 3
    cfg.write_text(FULL.replace("[route]\nlayers=-3", wide + "[route]\nlayers=-3", 1))
    with pytest.raises(UserError, match=r"is too large|cannot use"):
        read_network(cfg)
    cfg.write_text(FULL.replace("[convolutional]", wide + "[convolutional]", 1))
    with pytest.raises(UserError, match="is too large"):
        read_network(cfg)


def test_a_binary_file_is_reported_in_one_line(cfg: Path) -> None:
    cfg.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="not a text file"):
        read_network(cfg)


def test_a_model_of_other_blocks_cannot_be_written_as_a_cfg() -> None:
    with pytest.raises(UserError, match=r"layer 24 .Detect. has no counterpart"):
        cfg_text(find_architecture("n"), 64, 64)


LINES = FULL.splitlines()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.integers(0, len(LINES) - 1),
    st.sampled_from(["key", "value", "drop", "swap"]),
    st.one_of(st.integers(-(10**9), 10**9).map(str), st.text(max_size=8), st.sampled_from(LINES)),
)
def test_no_change_of_a_line_crashes_the_reader(cfg: Path, number: int, kind: str, junk: str) -> None:
    lines = list(LINES)
    key = lines[number].partition("=")[0]
    changed = {"key": junk, "value": f"{key}={junk}", "drop": "", "swap": lines[-number]}
    lines[number] = changed[kind]
    cfg.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        DetectionModel(read_network(cfg).architecture)
    except UserError as error:
        assert str(error).startswith(str(cfg))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(cfg: Path, data: bytes) -> None:
    cfg.write_bytes(b"[net]\n" + data)
    with pytest.raises(UserError):
        read_network(cfg)
