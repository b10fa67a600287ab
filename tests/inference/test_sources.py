"""Every kind of source, with real files and streams."""

import io
import json
import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.inference.conftest import Runner, make_image, mjpeg, probe, save_image, save_video, served
from yolo_cli.errors import UserError
from yolo_cli.inference.prefetch import Prefetch
from yolo_cli.inference.sources import images, streams, video
from yolo_cli.inference.sources.frames import Frame, Source
from yolo_cli.inference.sources.sources import find_sources, without_password


def test_one_image(run: Runner, tmp_path: Path) -> None:
    one = run(save_image(tmp_path / "a.jpg"))
    assert one.files == {"a.jpg", "opt.yaml"}
    assert cv2.imread(str(one.folder / "a.jpg")).shape == (48, 64, 3)
    assert one.messages.infos[0].startswith(f"{tmp_path / 'a.jpg'}: 64×48, ")


def test_a_folder_keeps_its_structure(run: Runner, tmp_path: Path) -> None:
    for name in ("a.jpg", "x/a.jpg", "x/y/a.png", ".hidden/b.jpg", "x/.b.jpg"):
        save_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.md").write_text("not an image")
    done = run(tmp_path / "in", save_txt=True)
    assert done.files == {
        *("a.jpg", "x/a.jpg", "x/y/a.png", "opt.yaml"),
        *("labels/a.txt", "labels/x/a.txt", "labels/x/y/a.txt"),
    }
    assert done.summary.images == 3


def test_a_symlink_loop(tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    assert find_sources(str(tmp_path / "in")).count == 1


def test_a_glob(run: Runner, tmp_path: Path) -> None:
    for name in ("in/p/a.jpg", "in/q/a.jpg", "in/q/b.png", "in/q/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    assert run(tmp_path / "in" / "*" / "a.*").files == {"p/a.jpg", "q/a.jpg", "opt.yaml"}
    assert run(tmp_path / "in" / "**" / "*", name="deep").summary.images == 3


def test_a_txt_list(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "p" / "a.jpg")
    save_image(tmp_path / "q" / "a.jpg")
    lines = ["# two images", "p/a.jpg", "", str(tmp_path / "q" / "a.jpg"), "p/missing.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    done = run(tmp_path / "list.txt")
    assert done.files == {"p/a.jpg", "q/a.jpg", "opt.yaml"}
    assert done.summary.skipped == 1
    assert "missing.jpg: skipped: cannot be read" in done.messages.warnings[0]


def test_standard_input(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = save_image(tmp_path / "p" / "a.jpg"), save_image(tmp_path / "q" / "a.jpg")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{a}\n\n{b}\n{a}\n{tmp_path / 'none.jpg'}\n"))
    done = run("-", save_txt=True)
    assert {f for f in done.files if f.endswith("jpg")} == {"a.jpg", "a.jpg.jpg", "a.jpg_2.jpg"}
    assert {f for f in done.files if f.startswith("labels")} == {
        "labels/a.txt",
        "labels/a.jpg.txt",
        "labels/a.jpg_2.txt",
    }
    assert done.summary.skipped == 1


def test_unreadable_lines_are_skipped(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save_image(tmp_path / "a.jpg")
    wrong = ["ftp://127.0.0.1/a.jpg", "file:///a.jpg", "http://127.0.0.1:9/shot", "http://[::1/a.jpg"]
    wrong += ["x" * 5000, "~nobody.here/a.jpg"]
    assert run("http://[::1/a.jpg", name="url").summary.skipped == 1
    text = "\n".join([*wrong, str(good)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    (tmp_path / "list.txt").write_text(text)
    for source in ("-", tmp_path / "list.txt"):
        done = run(source)
        assert done.summary.images == 1
        assert done.summary.skipped == len(wrong)
        assert all("skipped: " in line for line in done.messages.warnings)


def test_a_txt_list_of_urls(run: Runner, tmp_path: Path) -> None:
    data = cv2.imencode(".png", make_image())[1].tobytes()

    def answer(request: object) -> None:
        if request.path == "/cam":
            mjpeg(100_000, 0.01)(request)
            return
        request.send_response(200)
        request.end_headers()
        request.wfile.write(data)

    save_image(tmp_path / "here.jpg")
    with served(answer) as address:
        (tmp_path / "list.txt").write_text(f"here.jpg\n{address}/x/there.png\n{address}/shot\n{address}/cam\n")
        done = run(tmp_path / "list.txt")
    assert done.files == {"here.jpg", "there.png", "shot.jpg", "opt.yaml"}
    assert "skipped: not an image but multipart/x-mixed-replace" in done.messages.warnings[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_skipped(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "b.jpg")
    os.mkfifo(tmp_path / "in" / "a.jpg")
    os.mkfifo(tmp_path / "in" / "c.mp4")
    done = run(tmp_path / "in")
    assert done.summary.images == 1
    assert done.summary.skipped == 2


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_reported(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.jpg")
    save_image(tmp_path / "in" / "locked" / "b.jpg").parent.chmod(0)
    done = run(tmp_path / "in")
    (tmp_path / "in" / "locked").chmod(0o700)
    assert done.summary.images == 1
    assert "Permission denied" in done.messages.warnings[0]


@pytest.mark.parametrize("stride", [1, 4])
def test_a_video(run: Runner, tmp_path: Path, stride: int) -> None:
    done = run(save_video(tmp_path / "v.avi", 30, code="MJPG"), vid_stride=stride, save_txt=True)
    assert probe(done.folder / "v.mp4") == (-(-30 // stride), pytest.approx(12.5 / stride, rel=0.01), (48, 64))
    numbers = {int(p.stem.removeprefix("v_")) for p in (done.folder / "labels").iterdir()}
    assert numbers == set(range(1, 31, stride))
    assert done.messages.infos[0].startswith(f"{tmp_path / 'v.avi'}: {-(-30 // stride)} frames, ")


def test_a_video_with_odd_sides(run: Runner, tmp_path: Path) -> None:
    from yolo_cli.inference.writers.image_writer import VideoWriter

    made = VideoWriter(tmp_path / "odd.mp4", 25.0, (47, 63), live=False)
    for _ in range(3):
        made.add(make_image(47, 63), 0.0)
    made.close()
    assert probe(tmp_path / "odd.mp4") == (3, 25.0, (48, 64))


def test_a_video_that_was_cut_off(run: Runner, tmp_path: Path) -> None:
    whole = save_video(tmp_path / "v.avi", 60, code="MJPG").read_bytes()
    (tmp_path / "v.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.mp4").write_bytes(b"no video at all" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    save_image(tmp_path / "a.jpg")
    done = run(tmp_path)
    assert done.summary.skipped == 3
    assert done.summary.images == 1
    assert any("damaged or cut off" in line for line in done.messages.warnings)
    assert probe(done.folder / "v.mp4")[0] > 20


def test_an_animated_gif_is_a_video(run: Runner, tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [make_image(seed=i) for i in range(5)]
    animation.durations = np.full(5, 100)
    assert cv2.imwriteanimation(str(tmp_path / "a.gif"), animation)
    assert cv2.imwriteanimation(str(tmp_path / "b.webp"), animation)
    done = run(tmp_path, save_txt=True)
    assert probe(done.folder / "a.mp4")[0] == 5
    assert done.summary.images == 1  # of an animated WebP only the first image is read
    assert done.summary.skipped == 0


def test_an_image_at_a_url(run: Runner) -> None:
    data = cv2.imencode(".png", make_image())[1].tobytes()

    def answer(request: object) -> None:
        request.send_response(200 if "b.png" not in request.path else 404)
        request.send_header("Content-Type", "image/png")
        request.end_headers()
        request.wfile.write(data)

    with served(answer) as address:
        assert run(f"{address}/x/a.png?key=secret").files == {"a.png", "opt.yaml"}
        plain = run(f"{address}/shot", name="plain")
        assert plain.summary.images == 1
        failed = run(f"{address}/b.png", name="failed")
    assert failed.summary.skipped == 1
    assert "HTTP 404" in failed.messages.warnings[0]
    assert "secret" not in (plain.folder.parent / "exp" / "opt.yaml").read_text()


@pytest.mark.parametrize("place", ["file:///etc/hostname", "/circle.png"], ids=["to a file", "in a circle"])
def test_redirects_to_files_and_in_circles_are_refused(run: Runner, place: str) -> None:
    def answer(request: object) -> None:
        request.send_response(302)
        request.send_header("Location", place)
        request.end_headers()

    with served(answer) as address:
        done = run(f"{address}/a.png")
    assert done.summary.skipped == 1
    assert "HTTP 302" in done.messages.warnings[0]


def test_a_download_that_does_not_end(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_DOWNLOAD", 2**20)

    def answer(request: object) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "image/png")
        request.end_headers()
        while True:
            request.wfile.write(bytes(2**16))

    with served(answer) as address:
        done = run(f"{address}/a.png")
    assert done.summary.skipped == 1
    assert "is larger than 1 MiB" in done.messages.warnings[0]


def test_a_video_at_a_url(run: Runner, tmp_path: Path) -> None:
    data = save_video(tmp_path / "v.mp4", 20).read_bytes()

    def answer(request: object) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "video/mp4")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    with served(answer) as address:
        done = run(f"{address}/v.mp4")
    assert probe(done.folder / "v.mp4")[0] == 20


def test_a_stream_that_drops_is_opened_again(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAUSES", (0.05, 0.1))
    calls = []

    def answer(request: object) -> None:
        calls.append(time.monotonic())
        if len(calls) in (1, 2, 4):  # the first request asks for the media type
            mjpeg(8, 0.01)(request)
        else:
            request.send_error(503)

    with served(answer) as address:
        done = run(f"{address}/cam", stream_buffer=True, json=True)
    frames = [json.loads(line)["frame"] for line in done.lines]
    assert frames == list(range(1, 17))
    assert done.summary.skipped == 1  # it did not come back in the end
    assert any("reconnecting" in line for line in done.messages.warnings)
    assert any("lost after 16 frames" in line for line in done.messages.warnings)
    made = next(p for p in done.folder.iterdir() if p.suffix == ".mp4")
    assert probe(made)[0] >= 1


def test_several_streams_at_once(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAUSES", ())
    save_video(tmp_path / "v.mp4", 6)
    with served(mjpeg(5, 0.02)) as address:
        (tmp_path / "all.streams").write_text(f"{address}/one\n# a comment\n{address}/two\nv.mp4\n")
        done = run(tmp_path / "all.streams", stream_buffer=True, json=True)
    by_source: dict[str, list[int]] = {}
    for line in done.lines:
        content = json.loads(line)
        by_source.setdefault(content["source"].rpartition("/")[2], []).append(content["frame"])
    assert by_source == {"one": [1, 2, 3, 4, 5], "two": [1, 2, 3, 4, 5], "v.mp4": [1, 2, 3, 4, 5, 6]}
    assert len([f for f in done.files if f.endswith(".mp4")]) == 3


@pytest.mark.parametrize("text", ["97", "/dev/video97"])
def test_a_missing_camera(run: Runner, text: str) -> None:
    done = run(text)
    assert done.messages.warnings == ["camera 97: skipped: cannot be opened"]


def test_the_screen(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(UserError, match="screen"):
        run("screen")

    class Grabber:
        monitors = ("all", "first")
        taken = 0

        def __enter__(self) -> "Grabber":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def grab(self, monitor: str) -> np.ndarray:
            Grabber.taken += 1
            if Grabber.taken > 4:
                raise ScreenShotError("gone")
            return np.dstack([make_image(), np.full((48, 64), 255, np.uint8)])

    class ScreenShotError(Exception):
        pass

    fake = types.ModuleType("mss")
    fake.mss, fake.exception = Grabber, types.SimpleNamespace(ScreenShotError=ScreenShotError)
    monkeypatch.setitem(sys.modules, "mss", fake)
    with pytest.raises(UserError, match="gone"):
        run("screen", name="second", json=True)
    with pytest.raises(UserError, match="1 screens"):
        run("screen:2", name="third")


def test_a_live_source_drops_old_frames_not_new_ones() -> None:
    one, two = (Source("stream", name, Path(name), 0) for name in "ab")
    file = Source("video", "c", Path("c"), Path("c"))
    prefetch = Prefetch(8, newest_only=True)
    pixels = np.zeros((4, 4, 3), np.uint8)
    filled = threading.Event()

    def read() -> Iterator[Frame]:
        for number in range(1, 6):
            yield Frame(one, pixels, number=number)
            yield Frame(two, pixels, number=10 * number)
        for number in range(1, 4):
            yield Frame(file, pixels, number=number)
        filled.set()

    prefetch.start(read(), "read")
    assert filled.wait(5)
    taken = [prefetch.get(1) for _ in range(5)]
    assert [frame.number for frame in taken] == [5, 50, 1, 2, 3]  # frames of a file are never dropped
    assert prefetch.dropped == 8
    with pytest.raises(EOFError):
        prefetch.get(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no source given"),
        ("nowhere/at/all.jpg", "no such file"),
        ("nowhere/*.jpg", "no images or videos found"),
        ("ftp://host/a.jpg", "URLs of this kind"),
    ],
)
def test_sources_that_do_not_exist(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_sources(text)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images or videos found"):
        find_sources(str(tmp_path))


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://me:word@10.0.0.1:554/live?token=1") == "rtsp://10.0.0.1:554/live"
    (source,) = find_sources("rtsp://me:word@10.0.0.1:554/live").items
    assert "word" not in source.name + str(source.relative)
    assert source.location == "rtsp://me:word@10.0.0.1:554/live"


@pytest.mark.parametrize(("fps", "used"), [(29.97, 29.97), (0.0, 25.0), (float("nan"), 25.0), (90_000.0, 25.0)])
def test_invalid_frame_rates_are_replaced(fps: float, used: float) -> None:
    assert video.valid_fps(fps) == used
