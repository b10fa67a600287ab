import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from tarfile import DIRTYPE, GNUTYPE_LONGNAME, LNKTYPE, SYMTYPE, TarInfo
from tarfile import open as open_tar

import pytest
import yaml

from tests.recording import Recording
from tests.web_server import QuietHandler, folder_handler, web_server
from yolo_cli.dataset import download
from yolo_cli.dataset.download import unpack
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.errors import UserError
from yolo_cli.io import fetch
from yolo_cli.progress import Silent


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], str]]:
    """Serves bytes from a local web server and returns their URL."""
    folder = tmp_path / "web"
    folder.mkdir()
    with web_server(folder_handler(folder), monkeypatch) as url:

        def put(name: str, content: bytes) -> str:
            (folder / name).write_bytes(content)
            return f"{url}/{name}"

        yield put


def zipped(*names: str, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return out.getvalue()


def tarred(*members: TarInfo) -> bytes:
    out = io.BytesIO()
    with open_tar(fileobj=out, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def member(name: str, kind: bytes | None = None, link: str = "", size: int = 0) -> TarInfo:
    info = TarInfo(name)
    if kind is not None:
        info.type = kind
    info.linkname, info.size = link, size
    return info


def spec_of(tmp_path: Path, url: str, **keys):
    file = tmp_path / "mine.yaml"
    text = {"path": "set", "train": "images/train", "names": ["a"], "download": url, **keys}
    file.write_text(yaml.safe_dump(text))
    return load_spec(str(file))


@pytest.mark.parametrize("top", ["", "set/", "other-name/"])
def test_archive_is_downloaded_once_and_reported(top: str, serve, tmp_path: Path, own_cache: Path) -> None:
    archive = zipped(f"{top}images/train/a.jpg", f"{top}labels/train/a.txt", "__MACOSX/._a.jpg")
    url = serve("set.zip", archive)
    reporter = Recording()
    digest = hashlib.sha256(archive).hexdigest()
    spec = prepare(spec_of(tmp_path, url, sha256=digest), reporter)
    assert len(reporter.lines) == 1
    assert url in reporter.lines[0]
    (image,) = map(Path, split_files(spec, "train"))
    assert image.is_relative_to(own_cache)
    assert image.read_bytes() == b"x"
    assert not list((own_cache / "datasets").glob(".*"))  # no temporary files remain
    again = prepare(spec_of(tmp_path, url), reporter)
    assert len(reporter.lines) == 1
    assert split_files(again, "train") == [str(image)]


def test_tar_is_unpacked(serve, tmp_path: Path) -> None:
    url = serve("set.tar.gz", tarred(member("images", DIRTYPE), member("images/train/a.jpg", size=3)))
    spec = prepare(spec_of(tmp_path, url), Silent())
    assert Path(split_files(spec, "train")[0]).read_bytes() == b"xxx"


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        pytest.param(
            zipped("images/train/a.jpg"), {"sha256": "0" * 64}, "sha256 of .* is .*, not 000", id="other hash"
        ),
        pytest.param(b"#!/bin/sh\ntouch owned\n", {}, "neither a zip nor a tar", id="script"),
        pytest.param(zipped("readme.txt"), {}, "has no images/train", id="other content"),
        pytest.param(zipped("images/train/a.jpg")[:-30], {}, "neither a zip nor a tar|damaged", id="cut off"),
    ],
)
def test_an_archive_that_is_not_the_dataset_is_refused(
    content: bytes, keys: dict[str, str], message: str, serve, tmp_path: Path, own_cache: Path
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(spec_of(tmp_path, serve("set.zip", content), **keys), Silent())
    assert not list((own_cache / "datasets").iterdir())


def test_offline_error_names_the_alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = "http://127.0.0.1:9/set.zip"  # no server listens on the discard port
    with pytest.raises(UserError, match=rf"cannot download {url} .* unpack it, and set YOLO_DATASETS"):
        prepare(spec_of(tmp_path, url), Silent())


class Redirecting(QuietHandler):
    """Redirects every request, or sends a response without end."""

    target = "file:///etc/passwd"

    def do_GET(self) -> None:
        if "endless" in self.path:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(2**16))
        self.send_response(302)
        self.send_header("Location", self.path if "circle" in self.path else self.target)
        self.end_headers()


@pytest.fixture
def redirecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with web_server(Redirecting, monkeypatch) as url:
        yield url


@pytest.mark.parametrize("path", ["a.zip", "circle.zip"], ids=["to a file of this machine", "in a circle"])
def test_redirects_to_local_files_and_in_circles_are_refused(
    path: str, redirecting: str, tmp_path: Path, own_cache: Path
) -> None:
    with pytest.raises(UserError, match=r"cannot download .*HTTP 302"):
        prepare(spec_of(tmp_path, f"{redirecting}/{path}"), Silent())
    assert not list((own_cache / "datasets").iterdir())


def test_an_endless_download_leaves_room_on_the_disk(
    redirecting: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RESERVE", disk_usage(tmp_path).free - 5_000_000)
    with pytest.raises(UserError, match="does not give its size"):
        prepare(spec_of(tmp_path, f"{redirecting}/endless.zip"), Silent())
    assert not list((own_cache / "datasets").iterdir())


def test_http_404(serve, tmp_path: Path) -> None:
    url = serve("set.zip", b"").replace("set.zip", "none.zip")
    with pytest.raises(UserError, match=r"cannot download .*HTTP 404"):
        prepare(spec_of(tmp_path, url), Silent())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(zipped("ok.txt", "../evil.txt"), id="zip: up"),
        pytest.param(zipped("/tmp/evil.txt"), id="zip: absolute"),
        pytest.param(zipped("a\\..\\..\\evil.txt"), id="zip: backslashes"),
        pytest.param(zipped("C:/evil.txt"), id="zip: drive"),
        pytest.param(tarred(member("../evil.txt", size=1)), id="tar: up"),
        pytest.param(tarred(member("/evil.txt", size=1)), id="tar: absolute"),
        pytest.param(tarred(member("a", SYMTYPE, "..")), id="tar: symlink"),
        pytest.param(tarred(member("x"), member("a", LNKTYPE, "x")), id="tar: hard link"),
        pytest.param(tarred(member("a", SYMTYPE, "../.."), member("a/evil.txt", size=1)), id="tar: through a symlink"),
        pytest.param(tarred(member("pipe", b"6")), id="tar: named pipe"),
    ],
)
def test_unsafe_archives(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(UserError, match="unsafe archive"):
        unpack(tmp_path / "archive", tmp_path / "in" / "here")
    assert not list(tmp_path.rglob("evil.txt"))
    assert all(not path.is_symlink() for path in tmp_path.rglob("*"))


def test_symlink_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(UserError, match="'link' is a link"):
        unpack(tmp_path / "archive", tmp_path / "here")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_that_unpack_to_far_more_are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ALLOWANCE", 10_000)
    size = 5_000_000
    content = zipped("a", content=bytes(size)) if kind == "zip" else tarred(member("a", size=size))
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(UserError, match="far more than its own size"):
        unpack(tmp_path / "archive", tmp_path / "here")
    assert sum(file.stat().st_size for file in (tmp_path / "here").rglob("*")) < 100_000


def test_large_extended_headers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tarred(member("././@LongLink", GNUTYPE_LONGNAME, size=5_000_000)))
    with pytest.raises(UserError, match="extended header of 5000000 bytes"):
        unpack(tmp_path / "archive", tmp_path / "here")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_MEMBERS", 10)
    names = [f"{i}/" for i in range(20)]
    content = zipped(*names) if kind == "zip" else tarred(*(member(name, DIRTYPE) for name in names))
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(UserError, match="more than 10 members"):
        unpack(tmp_path / "archive", tmp_path / "here")
    assert len(list((tmp_path / "here").iterdir())) <= 11
