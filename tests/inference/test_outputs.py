"""The files that a run writes."""

import csv
import json
import os
import sys
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest
import torch

from tests.inference.conftest import Runner, make_image, probe, save_image, save_video
from yolo_cli.batch import Detections
from yolo_cli.drawing import Style, class_color, draw_boxes
from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Frame, Source
from yolo_cli.inference.writers.image_writer import VideoWriter
from yolo_cli.inference.writers.output_paths import OutputPaths
from yolo_cli.inference.writers.result_formats import CocoWriter, label_lines


def test_all_result_formats_agree(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "000000000042.jpg")
    save_video(tmp_path / "in" / "v.mp4", 3)
    wanted = {"save_txt": True, "save_conf": True, "save_csv": True, "save_json": True, "save_crop": True, "json": True}
    done = run(tmp_path / "in", **wanted)
    lines = [json.loads(line) for line in done.lines]
    assert [(PurePath(line["source"]).name, line["frame"]) for line in lines] == [
        ("000000000042.jpg", None),
        *(("v.mp4", number) for number in (1, 2, 3)),
    ]
    rows = list(csv.DictReader((done.folder / "predictions.csv").read_text().splitlines()))
    coco = json.loads((done.folder / "predictions.json").read_text())
    assert len(rows) == len(coco) == sum(len(line["detections"]) for line in lines) == 8
    first, entry, row = lines[0]["detections"][0], coco[0], rows[0]
    assert entry["image_id"] == 42
    assert len({e["image_id"] for e in coco}) == 4
    x1, y1, x2, y2 = first["xyxy"]
    assert entry["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.02)
    assert [float(row[k]) for k in ("x1", "y1", "x2", "y2")] == pytest.approx(first["xyxy"], abs=0.01)
    assert row["class"] == first["name"]
    label = (done.folder / "labels" / "000000000042.txt").read_text().splitlines()[0].split()
    numbers = [(x1 + x2) / 2 / 64, (y1 + y2) / 2 / 48, (x2 - x1) / 64, (y2 - y1) / 48, first["confidence"]]
    assert [float(v) for v in label[1:]] == pytest.approx(numbers, abs=1e-3)
    assert int(label[0]) == first["class_id"]
    assert {f"labels/v_{n}.txt" for n in (1, 2, 3)} <= done.files
    crops = [f for f in done.files if f.startswith("crops/")]
    assert len(crops) == 8
    assert {PurePath(f).parts[1] for f in crops} <= {"cat", "dog", "bär"}


def test_two_inputs_never_share_an_output_file(run: Runner, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.bmp", "a_1.jpg", "A.webp"):
        save_image(tmp_path / "in" / name)
    save_video(tmp_path / "in" / "a.mp4", 2)
    save_video(tmp_path / "in" / "a.avi", 2, code="MJPG")
    done = run(tmp_path / "in", save_txt=True, save_crop=True)
    drawn = {f for f in done.files if "/" not in f} - {"opt.yaml"}
    assert len(drawn) == 7
    assert len({f for f in done.files if f.startswith("labels/")}) == 5 + 2 * 2
    assert len({f for f in done.files if f.startswith("crops/")}) == 2 * (5 + 2 * 2)
    assert done.summary.skipped == 0


@pytest.mark.parametrize("order", [("a_1.jpg", "a.mp4"), ("a.mp4", "a_1.jpg")])
def test_a_video_frame_and_an_image_of_the_same_name(order: tuple[str, str]) -> None:
    paths = OutputPaths()
    bases = []
    for name in order:
        source = Source("video" if name.endswith("mp4") else "image", name, PurePath(name), Path(name))
        frame = Frame(source, np.zeros((4, 4, 3), np.uint8), number=1 if name.endswith("mp4") else 0)
        bases.append(paths.assign(source).stem(frame))
    assert len(set(bases)) == 2


def test_an_input_folder_named_crops(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.jpg")
    for name in ("cat", "dog", "bär"):
        save_image(tmp_path / "in" / "crops" / name / "a_1.jpg", seed=1)
    done = run(tmp_path / "in", save_crop=True, max_det=1)
    assert len([f for f in done.files if f.startswith("crops/")]) == 4
    assert {f"crops_/{name}/a_1.jpg" for name in ("cat", "dog", "bär")} <= done.files


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_file_names_that_are_not_valid_utf8(run: Runner, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    save_image(tmp_path / "in" / f"{odd}.jpg")
    save_video(tmp_path / "v.mp4", 1).rename(tmp_path / "in" / f"{odd}.mp4")
    done = run(tmp_path / "in", save_txt=True, save_csv=True, save_json=True)
    assert {f"{odd}.jpg", f"{odd}.mp4"} <= done.files
    assert done.summary.skipped == 0
    assert "caf\\udce9.jpg" in (done.folder / "predictions.csv").read_text()
    names = [entry["file_name"] for entry in json.loads((done.folder / "predictions.json").read_text())]
    assert any(name.endswith(f"{odd}.jpg") for name in names)


def test_file_names_of_the_maximum_length(run: Runner, tmp_path: Path) -> None:
    for letters in ("x" * 251, "y" * 250 + "1", "y" * 250 + "2", "ä" * 125):
        save_image(tmp_path / "in" / f"{letters}.jpg")
    done = run(tmp_path / "in", save_txt=True, save_crop=True)
    assert len([f for f in done.files if f.startswith("labels/")]) == 4
    assert len([f for f in done.files if f.startswith("crops/")]) == 8


def test_unicode_file_names(run: Runner, tmp_path: Path) -> None:
    save_image(tmp_path / "ein gänse" / "写真 1.jpg")
    save_video(tmp_path / "ein gänse" / "видео.mp4", 2)
    done = run(tmp_path / "ein gänse", save_txt=True, save_csv=True)
    assert {"写真 1.jpg", "видео.mp4", "labels/写真 1.txt", "labels/видео_2.txt"} <= done.files
    assert "写真" in (done.folder / "predictions.csv").read_text(encoding="utf-8")


def test_no_run_folder_without_outputs(run: Runner, tmp_path: Path) -> None:
    done = run(save_image(tmp_path / "a.jpg"), nosave=True, json=True)
    assert not (tmp_path / "runs").exists()
    assert len(done.lines) == 1


def test_labels_without_images(run: Runner, tmp_path: Path) -> None:
    done = run(save_image(tmp_path / "a.jpg"), nosave=True, save_txt=True)
    assert done.files == {"opt.yaml", "labels/a.txt"}
    assert all(len(line.split()) == 5 for line in (done.folder / "labels/a.txt").read_text().splitlines())


def test_the_inputs_are_not_changed(run: Runner, tmp_path: Path) -> None:
    before = save_image(tmp_path / "in" / "a.jpg").read_bytes()
    run(tmp_path / "in", save_txt=True)
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.jpg"]
    assert (tmp_path / "in" / "a.jpg").read_bytes() == before


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4", "a.avi"])
def test_a_run_folder_among_the_inputs_is_refused(run: Runner, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "runs" / "exp"
    folder.mkdir(parents=True)
    save_image(folder / name) if name.endswith("jpg") else save_video(folder / name, 2)
    before = (folder / name).read_bytes()
    with pytest.raises(UserError, match="among the inputs"):
        run(folder, exist_ok=True)
    assert (folder / name).read_bytes() == before
    assert {p.name for p in folder.iterdir()} == {name, "opt.yaml"}


def test_feature_maps_do_not_depend_on_other_images(run: Runner, tmp_path: Path) -> None:
    for i in range(6):
        save_image(tmp_path / "in" / f"{i}.png", seed=i)
    together = run(tmp_path / "in", visualize=True, nosave=True)
    assert len([f for f in together.files if f.startswith("features/")]) == 6 * 4
    for i in range(6):
        alone = run(tmp_path / "in" / f"{i}.png", visualize=True, nosave=True, name=f"alone{i}")
        name = f"features/{i}/layer00_Conv.png"
        assert (alone.folder / name).read_bytes() == (together.folder / name).read_bytes()


def test_an_output_folder_that_cannot_be_written(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "runs" / "exp").mkdir(parents=True)
    (tmp_path / "runs" / "exp" / "labels").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        run(save_image(tmp_path / "a.jpg"), save_txt=True, exist_ok=True)


def test_no_label_file_without_detections(run: Runner, tmp_path: Path) -> None:
    done = run(save_image(tmp_path / "a.jpg"), save_txt=True, conf=1.0)
    assert done.files == {"a.jpg", "opt.yaml"}
    assert "no detections" in done.messages.infos[0]


def test_label_lines() -> None:
    found = Detections(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([0.5]), torch.tensor([7]))
    assert label_lines(found, (100, 200), confidence=True) == "7 0.100000 0.400000 0.100000 0.400000 0.500000\n"


def test_coco_image_ids_are_distinct(tmp_path: Path) -> None:
    coco = CocoWriter(tmp_path)
    found = Detections(torch.zeros(1, 4), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    paths = OutputPaths()
    for name in ("7.jpg", "x/7.jpg", "street.jpg"):
        source = Source("image", name, PurePath(name), Path(name))
        coco.add(Frame(source, np.zeros((4, 4, 3), np.uint8), detections=found), paths.assign(source))
    coco.close()
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [e["image_id"] for e in entries] == [7, 10**15 + 1, 10**15 + 2]


def test_a_live_video_plays_in_real_time(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "v.mp4", 10.0, (48, 64), live=True)
    for at in (0.0, 0.1, 0.2, 0.6, 0.61, 20.0, 20.1):  # dropped frames, then a long gap
        video.add(make_image(), 100 + at)
    video.close()
    assert probe(tmp_path / "v.mp4") == (3 + 4 + 0 + 10 + 1, 10.0, (48, 64))


def test_a_video_larger_than_the_codec_allows(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "v.mp4", 10.0, (100, 10_000), live=False)
    for _ in range(2):
        video.add(np.zeros((100, 10_000, 3), np.uint8), 0.0)
    video.close()
    assert probe(tmp_path / "v.mp4") == (2, 10.0, (82, 8190))


def test_a_high_frame_rate_is_kept(run: Runner, tmp_path: Path) -> None:
    done = run(save_video(tmp_path / "v.avi", 6, fps=480.0, code="MJPG"))
    assert probe(done.folder / "v.mp4")[:2] == (6, 480.0)


@pytest.mark.parametrize("size", [(96, 128), (30, 40), (49, 64), (48, 65), (49, 63), (47, 65)])
def test_a_stream_may_change_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    video = VideoWriter(tmp_path / "v.mp4", 10.0, (48, 64), live=False)
    for height, width in ((48, 64), size, (48, 64)):
        video.add(make_image(height, width), 0.0)
    video.close()
    assert probe(tmp_path / "v.mp4") == (3, 10.0, (48, 64))


@pytest.mark.parametrize("bgr", [False, True])
def test_class_colors_in_rgb_and_bgr(bgr: bool) -> None:
    boxes = torch.tensor([[0.0, 5, 5, 40, 40, 0.9], [1.0, 50, 5, 90, 40, 0.8]])
    drawn = draw_boxes(np.zeros((64, 100, 3), np.uint8), boxes, ("a", "b"), Style(line=3, labels=False, bgr=bgr))
    for class_id, x in ((0, 5), (1, 50)):
        color = class_color(class_id)
        assert tuple(drawn[30, x]) == (color[::-1] if bgr else color)


def test_drawing_without_names_or_confidences() -> None:
    boxes = torch.tensor([[0.0, 20, 30, 90, 60, 0.9]])
    image = np.zeros((100, 120, 3), np.uint8)
    looks = [Style(), Style(confidence=False), Style(labels=False), Style(line=9), Style(line=10**6)]
    drawn = [draw_boxes(image, boxes, ("dog",), style) for style in looks]
    changed = [int((p > 0).any(axis=2).sum()) for p in drawn]
    assert changed[0] > changed[1] > changed[2]
    assert changed[4] > changed[3] > changed[0]


def test_letters_suit_the_split_into_tiles_a_large_picture() -> None:
    boxes, image = torch.tensor([[0.0, 900, 900, 960, 960, 0.9]]), np.zeros((2160, 2160, 3), np.uint8)
    large, small = (draw_boxes(image, boxes, ("dog",), style) for style in (Style(), Style(side=640)))
    assert small.any(axis=2).sum() < large.any(axis=2).sum() / 4


def test_a_name_that_does_not_fit_is_not_drawn() -> None:
    boxes, image = torch.tensor([[0.0, 20, 2, 90, 8, 0.9]]), np.zeros((10, 120, 3), np.uint8)
    assert np.array_equal(draw_boxes(image, boxes, ("dog",)), draw_boxes(image, boxes, ("dog",), Style(labels=False)))


def test_drawing_a_thousand_boxes() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 900, (1000, 2))
    rows = np.column_stack([rng.integers(0, 80, 1000), low, low + 60, rng.uniform(0, 1, 1000)])
    drawn = draw_boxes(np.zeros((960, 960, 3), np.uint8), torch.from_numpy(rows).float(), ["name"] * 80)
    assert drawn.any()


def test_image_formats_that_are_written(run: Runner, tmp_path: Path) -> None:
    for name in ("a.bmp", "b.png", "c.tif", "d.webp", "e.ppm", "f.jp2"):
        save_image(tmp_path / "in" / name)
    done = run(tmp_path / "in")
    assert done.files == {"a.bmp", "b.png", "c.tif", "d.webp", "e.jpg", "f.jpg", "opt.yaml"}
    for file in done.files - {"opt.yaml"}:
        assert cv2.imread(str(done.folder / file)).shape == (48, 64, 3)
