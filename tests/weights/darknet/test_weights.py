"""Darknet's weight files: headers, backbone files, damaged files, and writing."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recording import Recording
from yolo_cli.errors import UserError
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.weights import checkpoint
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.weights import Header, is_darknet, pack_weights, read_weights
from yolo_cli.weights.load import load_weights

CFG = """\
[net]
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=6
groups=2
activation=relu
[convolutional]
filters=7
activation=linear
[yolo]
anchors=10,14
classes=2
"""
SIZES = (4 * 4 + 4 * 3 * 9, 6 + 6 * 2, 7 + 7 * 6)


@pytest.fixture
def network(tmp_path: Path) -> Architecture:
    (tmp_path / "net.cfg").write_text(CFG)
    return read_network(tmp_path / "net.cfg").architecture


def write(path: Path, count: int, header: bytes = Header().pack()) -> np.ndarray:
    values = np.random.default_rng(1).random(count, dtype=np.float32)
    path.write_bytes(header + values.tobytes())
    return values


def test_parameters_are_read_in_darknets_order(network: Architecture, tmp_path: Path) -> None:
    values = write(tmp_path / "net.weights", sum(SIZES))
    state = read_weights(tmp_path / "net.weights", network).state
    for name, start in (("bn.bias", 0), ("bn.weight", 4), ("bn.running_mean", 8), ("bn.running_var", 12)):
        np.testing.assert_array_equal(state[f"model.0.{name}"], values[start : start + 4])
    np.testing.assert_array_equal(state["model.0.conv.weight"], values[16:124].reshape(4, 3, 3, 3))
    np.testing.assert_array_equal(state["model.1.conv.bias"], values[124:130])
    np.testing.assert_array_equal(state["model.1.conv.weight"], values[130:142].reshape(6, 2, 1, 1))


@pytest.mark.parametrize(
    ("version", "bytes_of_seen"),
    [((0, 1, 0), 4), ((0, 2, 0), 8), ((0, 2, 5), 8), ((1, 0, 0), 8), ((1001, 0, 0), 4)],
)
def test_every_header_is_read_and_written_back(
    network: Architecture, tmp_path: Path, version: tuple[int, int, int], bytes_of_seen: int
) -> None:
    start = struct.pack("<3i", *version) + (32_013_312).to_bytes(bytes_of_seen, "little")
    write(tmp_path / "net.weights", sum(SIZES), start)
    read = read_weights(tmp_path / "net.weights", network)
    assert read.header == Header(*version, 32_013_312)
    assert pack_weights(network, read.state, read.header) == (tmp_path / "net.weights").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (-1, "191 numbers expected for net, 190 found; it ends within convolution 3 of 3"),
        (1, "191 numbers expected for net, 192 found; the file belongs to another .cfg"),
        (-SIZES[2], "142 found; it holds the first 2 of 3 convolutions; name it NAME.conv.2"),
        (-sum(SIZES), "191 numbers expected for net, 0 found"),
    ],
)
def test_a_wrong_length_is_reported_with_the_expected_one(
    network: Architecture, tmp_path: Path, change: int, message: str
) -> None:
    write(tmp_path / "net.weights", sum(SIZES) + change)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        read_weights(tmp_path / "net.weights", network)


def test_a_file_far_too_large_is_not_read(network: Architecture, tmp_path: Path) -> None:
    write(tmp_path / "net.weights", 0)
    os.truncate(tmp_path / "net.weights", 2**36)  # sparse: it takes no room on the disk
    with pytest.raises(UserError, match=r"17,179,869,179 found"):
        read_weights(tmp_path / "net.weights", network)


def test_leftover_bytes_are_reported(network: Architecture, tmp_path: Path) -> None:
    write(tmp_path / "net.weights", sum(SIZES))
    with (tmp_path / "net.weights").open("ab") as file:
        file.write(b"xy")
    with pytest.raises(UserError, match="191 and 2 bytes found"):
        read_weights(tmp_path / "net.weights", network)


def test_a_backbone_file_fills_the_first_layers(network: Architecture, tmp_path: Path) -> None:
    file = tmp_path / "net.conv.2"
    write(file, sum(SIZES[:2]))
    weights = load_weights(file, cfg=str(tmp_path / "net.cfg"))
    assert any("the first 2 of 3 convolutions" in note for note in weights.notes)
    assert {name.split(".")[1] for name in weights.state} == {"0", "1"}
    with pytest.raises(UserError, match=r"first 2 of 3 convolutions, not a whole network; start a training"):
        weights.build_model()
    write(file, sum(SIZES[:2]) + 3)
    with pytest.raises(UserError, match="ends within convolution 3"):
        load_weights(file, cfg=str(tmp_path / "net.cfg"))


@pytest.mark.parametrize(
    ("name", "darknet"),
    [("a.weights", True), ("darknet53.conv.74", True), ("yolov4.conv.137", True), ("a.pt", False), ("a.conv", False)],
)
def test_darknet_files_are_recognized_by_their_names(name: str, darknet: bool) -> None:
    assert is_darknet(Path(name)) is darknet


def test_the_cfg_beside_the_weights_is_used_and_reported(network: Architecture, tmp_path: Path) -> None:
    write(tmp_path / "net.weights", sum(SIZES))
    reporter = Recording()
    assert load_weights(tmp_path / "net.weights", reporter=reporter).build_model().nc == 2
    assert reporter.lines == [f"--cfg left out: using {tmp_path / 'net.cfg'}, beside the weights"]
    (tmp_path / "net.cfg").rename(tmp_path / "other.cfg")
    with pytest.raises(UserError, match="do not contain their network; give it: --cfg NET"):
        load_weights(tmp_path / "net.weights", reporter=reporter)
    assert load_weights(tmp_path / "net.weights", cfg=str(tmp_path / "other.cfg")).build_model().nc == 2


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (-1.0, "variances are negative")])
def test_invalid_weights_are_a_warning(network: Architecture, tmp_path: Path, value: float, message: str) -> None:
    values = write(tmp_path / "net.weights", sum(SIZES))
    values[12] = value
    (tmp_path / "net.weights").write_bytes(Header().pack() + values.tobytes())
    reporter = Recording()
    load_weights(tmp_path / "net.weights", reporter=reporter)
    assert message in reporter.lines[-1]
    assert "model.0.bn.running_var" in reporter.lines[-1]


def test_a_trained_model_can_be_written_as_darknet_weights(network: Architecture, tmp_path: Path) -> None:
    values = write(tmp_path / "net.weights", sum(SIZES))
    model = load_weights(tmp_path / "net.weights").build_model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(raw.square().mean() for raw in model(torch.rand(2, 3, 8, 8))).backward()  # type: ignore[union-attr]
    optimizer.step()
    checkpoint.save(tmp_path / "a.pt", model, epoch=0)
    again = load_weights(tmp_path / "a.pt").build_model()
    data = pack_weights(again.architecture, again.state_dict(), Header())
    (tmp_path / "trained.weights").write_bytes(data)
    read = read_weights(tmp_path / "trained.weights", network)
    assert len(data) == (tmp_path / "net.weights").stat().st_size
    assert data[20:] != values.tobytes()
    for name, value in read.state.items():
        if not name.endswith("tracked"):
            assert torch.equal(value, model.state_dict()[name])


def test_a_model_of_other_blocks_cannot_be_written() -> None:
    with pytest.raises(UserError, match="has no counterpart in Darknet"):
        pack_weights(find_architecture("n"), {}, Header())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 900), st.sampled_from(["a.weights", "a.conv.1"]))
def test_no_bytes_crash_the_reader(network: Architecture, tmp_path: Path, start: bytes, size: int, name: str) -> None:
    (tmp_path / name).write_bytes(start + b"\0" * size)
    try:
        read = read_weights(tmp_path / name, network)
    except UserError as error:
        assert str(error).startswith(str(tmp_path / name))
    else:
        assert 1 <= read.convolutions <= read.total == 3
