"""Weights by name: looked for on this machine, else downloaded, checked and kept whole."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.recording import Recording
from tests.web_server import folder_handler, web_server
from yolo_cli.errors import UserError
from yolo_cli.weights import published
from yolo_cli.weights.load import find_weights, load_weights


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a web server that stands for the publisher's."""
    monkeypatch.delenv("YOLO_WEIGHTS", raising=False)
    folder = tmp_path / "release"
    folder.mkdir()
    nano = published.PUBLISHED["yolox-nano"]
    with web_server(folder_handler(folder), monkeypatch) as url:
        monkeypatch.setitem(published.PUBLISHED, "yolox-nano", replace(nano, url=f"{url}/yolox_nano.pth"))
        yield folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.slow
def test_weights_are_downloaded_once_with_source_license_and_size(release: Path, cache: Path, reference: Path) -> None:
    shutil.copy(reference / "weights/yolox_nano.pth", release)
    reporter = Recording()
    path = find_weights("yolox-nano", reporter=reporter)
    assert path == cache / "yolox_nano.pth"
    assert path.read_bytes() == (release / "yolox_nano.pth").read_bytes()
    (line,) = reporter.lines
    assert "127.0.0.1" in line
    assert "Apache-2.0" in line
    assert " MB" in line
    assert kept(cache) == ["yolox_nano.pth"]
    (release / "yolox_nano.pth").unlink()
    assert find_weights("yolox-nano", reporter=reporter) == path
    assert len(reporter.lines) == 1
    assert load_weights(path).architecture.name == "yolox-nano"


def test_the_users_own_folder_comes_first(
    release: Path, cache: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_WEIGHTS", str(reference / "weights"))
    reporter = Recording()
    assert find_weights("yolox-nano", reporter=reporter) == reference / "weights/yolox_nano.pth"
    assert reporter.lines == []
    assert not cache.exists()


def test_offline_the_error_names_the_url_and_the_folder(release: Path, cache: Path) -> None:
    with pytest.raises(UserError) as error:  # the server has no such file
        find_weights("yolox-nano", reporter=Recording())
    assert "yolox_nano.pth" in str(error.value)
    assert str(cache) in str(error.value)
    assert "YOLO_WEIGHTS" in str(error.value)
    assert "\n" not in str(error.value)
    assert kept(cache) == []


@pytest.mark.parametrize("kind", ["cut", "html", pytest.param("another size", marks=pytest.mark.slow), "another hash"])
def test_a_wrong_download_is_not_kept(
    kind: str, release: Path, cache: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (reference / "weights/yolox_nano.pth").read_bytes()
    file = release / "yolox_nano.pth"
    file.write_bytes({"cut": content[:100_000], "html": b"<html>log in</html>"}.get(kind, content))
    if kind == "another size":
        small = torch.load(file, weights_only=True)
        name = "backbone.backbone.dark2.0.pconv.conv.weight"
        small["model"][name] = small["model"][name][:8].clone()
        torch.save(small, file)
    if kind == "another hash":
        entry = replace(published.PUBLISHED["yolox-nano"], sha256="0" * 64)
        monkeypatch.setitem(published.PUBLISHED, "yolox-nano", entry)
    with pytest.raises(UserError, match=r"is not yolox-nano|SHA-256"):
        find_weights("yolox-nano", reporter=Recording())
    assert kept(cache) == []


def test_a_file_of_that_name_wins(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolox-nano").write_bytes(b"mine")
    assert find_weights("yolox-nano", reporter=Recording()) == Path("yolox-nano")


@pytest.mark.parametrize("kind", ["cut", pytest.param("other classes", marks=pytest.mark.slow)])
def test_a_wrong_file_on_this_machine_is_named(
    kind: str, tmp_path: Path, cache: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (reference / "weights/yolox_nano.pth").read_bytes()
    file = tmp_path / "own" / "yolox_nano.pth"
    file.parent.mkdir()
    file.write_bytes(content[:100_000] if kind == "cut" else content)
    if kind == "other classes":
        state = torch.load(file, weights_only=True)
        for name in [name for name in state["model"] if "cls_preds" in name]:
            state["model"][name] = state["model"][name][:6].clone()
        torch.save(state, file)
    monkeypatch.setenv("YOLO_WEIGHTS", str(file.parent))
    with pytest.raises(UserError, match="is not yolox-nano") as error:
        find_weights("yolox-nano", reporter=Recording())
    assert str(file) in str(error.value)


def test_the_folder_of_weights_must_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"YOLO_WEIGHTS=.*is not a folder"):
        find_weights("yolox-nano", reporter=Recording())


def test_a_folder_of_that_name_hides_nothing(tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolox-nano").mkdir()
    monkeypatch.setenv("YOLO_WEIGHTS", str(reference / "weights"))
    assert find_weights("yolox-nano", reporter=Recording()) == reference / "weights/yolox_nano.pth"
