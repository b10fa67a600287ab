import os
import sys
from pathlib import Path

import pytest

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_folder, atomic_path, remove_leftovers, write_atomically
from yolo_cli.io.cache_dir import user_cache_folder


def test_after_an_error_only_the_older_file_remains(tmp_path: Path) -> None:
    def fail(file: Path) -> None:
        with atomic_path(file) as part:
            part.write_text("half of the new")
            raise InterruptedError

    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(InterruptedError):
        fail(file)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_previous_file_is_kept(tmp_path: Path) -> None:
    file, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for content in (b"first", b"second", b"third"):
        write_atomically(file, content, what="checkpoint", previous=previous)
    assert (previous.read_bytes(), file.read_bytes()) == (b"second", b"third")
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "previous.pt"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/a\.pt: checkpoint cannot be written \(No such file"):
        write_atomically(tmp_path / "none" / "a.pt", b"", what="checkpoint")


@pytest.mark.skipif(os.name != "posix", reason="the umask is POSIX's")
def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.pt", b"", what="checkpoint")
    finally:
        os.umask(umask)
    assert (tmp_path / "a.pt").stat().st_mode & 0o777 == 0o644


def test_a_replaced_file_keeps_its_mode_and_links_to_it(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"old")
    (tmp_path / "best.pt").chmod(0o600)
    (tmp_path / "current.pt").symlink_to("best.pt")
    write_atomically(tmp_path / "current.pt", b"new", what="x")
    assert (tmp_path / "current.pt").is_symlink()
    assert (tmp_path / "best.pt").read_bytes() == b"new"
    assert (tmp_path / "best.pt").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_write_protected_file_stays(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"old")
    (tmp_path / "best.pt").chmod(0o444)
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "best.pt", b"new", what="x")
    assert (tmp_path / "best.pt").read_bytes() == b"old"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        with atomic_path(tmp_path / "last.pt") as part:
            part.write_bytes(b"half")
            os._exit(1)
    os.waitpid(pid, 0)
    (tmp_path / "best.pt").write_bytes(b"whole")
    assert len(os.listdir(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["best.pt"]


def test_yolo_cache_dir_takes_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("YOLO_CACHE_DIR", "~/mine")
    assert user_cache_folder() == tmp_path / "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG folders are Linux's")
@pytest.mark.parametrize(("xdg", "expected"), [("", ".cache/yolo_cli"), ("/far/cache", "/far/cache/yolo_cli")])
def test_the_cache_folder_on_linux(xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("YOLO_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert user_cache_folder() == tmp_path / expected


def test_a_folder_appears_complete(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"
    with atomic_folder(folder) as complete:
        complete.mkdir()
        (complete / "a.txt").write_text("a")
        complete.with_name("scratch").write_text("not part of it")
        assert not folder.exists()
    assert os.listdir(folder) == ["a.txt"]
    assert os.listdir(folder.parent) == ["set"]


def test_the_folder_of_a_faster_process_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set") as complete:
        complete.mkdir()
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "first.txt").write_text("")
    assert os.listdir(tmp_path / "set") == ["first.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("refused")], ids=["disk", "user"])
def test_a_failed_folder_leaves_nothing(error: Exception, tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "x" / "set") as complete:
            complete.mkdir()
            raise error

    with pytest.raises(UserError, match=r"No space left on device.*YOLO_CACHE_DIR|refused"):
        fail()
    assert os.listdir(tmp_path / "x") == []
