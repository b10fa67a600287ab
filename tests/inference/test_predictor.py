"""Detections: equal to published ones, to those of `yolo val`, and the same in every mode."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.conftest import Runner, make_image
from yolo_cli.batch import Detections, prepare_images
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.commands.detect import run as detect
from yolo_cli.config import DetectConfig
from yolo_cli.dataset.images import read_image
from yolo_cli.dataset.label_index import build_index
from yolo_cli.dataset.loader import val_loader
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.inference.predictor import Predictor, Settings
from yolo_cli.inference.tiles import Tile, merge_tiles, split_into_tiles
from yolo_cli.inference.tta import augmented_rows
from yolo_cli.model.candidates import decode_candidates
from yolo_cli.model.darknet_head import DarknetDetect
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def published(reference: Path) -> Predictor:
    return Predictor(TorchRuntime(load_weights(reference / "weights/yolov5n.pt").build_model(), CPU), CPU, Settings())


@pytest.fixture(scope="module")
def small(tiny: Path) -> Predictor:
    return Predictor(TorchRuntime(load_weights(tiny).build_model(), CPU), CPU, Settings(img=(64, 64), max_det=20))


def test_the_published_detections(reference: Path, published: Predictor) -> None:
    stored = np.load(reference / "reference/forward/yolov5n_pretrained_000000000034.npz")
    (path,) = (reference / "datasets/coco128").rglob("000000000034.jpg")
    model_input = published.preprocess(read_image(path))
    assert np.array_equal(model_input.image[None].numpy(), stored["input_uint8"])
    (found,) = published.predict([model_input])
    expected = torch.from_numpy(stored["nms_conf25_iou45"])
    in_image = Detections(expected[:, :4], expected[:, 4], expected[:, 5].long()).to_image(model_input.letterbox)
    torch.testing.assert_close(found.xyxy, in_image.xyxy, atol=0.05, rtol=0)
    torch.testing.assert_close(found.confidence, expected[:, 4], atol=1e-3, rtol=0)
    assert found.class_id.tolist() == expected[:, 5].tolist()
    bgr = published.preprocess(read_image(path)[..., ::-1].copy(), bgr=True)
    assert torch.equal(bgr.image, model_input.image)


def same(found: Detections, other: Detections, at_least: float) -> int:
    """How many of `found` have a box of the same class with at least this IoU in `other`."""
    overlap = pairwise_iou(found.xyxy, other.xyxy) * (found.class_id[:, None] == other.class_id[None])
    return int((overlap.amax(1) >= at_least).sum()) if len(other) and len(found) else 0


def test_detect_and_val_agree(reference: Path, published: Predictor) -> None:
    """On the same input the boxes are equal. `yolo val` pads more by default, and then they are nearly equal."""
    images = sorted((reference / "datasets/coco128/images/val2017").iterdir())[:8]
    pairs = []
    for path in images:
        index = build_index([path], 80, strict=False, cache_dir=None, workers=0, progress=None)
        (found,) = published.predict([published.preprocess(read_image(path))])
        for pad, exactly in ((0.0, True), (0.5, False)):
            (batch,) = val_loader(index, img=(640, 640), batch=1, pad=pad)
            with torch.inference_mode():
                rows = published.model.decode(published.model(prepare_images(batch.images, CPU)))
                (whole,) = non_max_suppression(rows, conf=0.25, iou=0.45, max_det=1000, multi_label=True)
            validated = whole.to_image(batch.letterboxes[0])
            if exactly:
                assert same(found, validated, 0.999) == len(found)
                assert len(validated) - len(found) <= 1  # validation also counts a box's second class
            else:
                # Near the threshold, a box may be above it with one padding and below it with the other.
                for one, other in ((found, validated), (validated, found)):
                    clear = sure(one)
                    pairs.append((same(clear, other, 0.7), len(clear)))
    matched, clear_ones = (sum(column) for column in zip(*pairs, strict=True))
    assert clear_ones >= 20
    assert matched >= 0.95 * clear_ones


def sure(found: Detections) -> Detections:
    kept = found.confidence >= 0.4
    return Detections(found.xyxy[kept], found.confidence[kept], found.class_id[kept])


def test_the_command_and_python_agree(reference: Path, published: Predictor, tmp_path: Path) -> None:
    path = sorted((reference / "datasets/coco128/images/val2017").iterdir())[0]
    lines: list[str] = []
    weights = str(reference / "weights/yolov5n.pt")
    detect(
        DetectConfig(source=str(path), weights=weights, nosave=True, json=True, device="cpu"), Silent(), lines.append
    )
    (found,) = published.predict([published.preprocess(read_image(path))])
    boxes = [d["xyxy"] for d in json.loads(lines[0])["detections"]]
    np.testing.assert_allclose(boxes, found.xyxy.numpy(), atol=0.02)


@pytest.mark.parametrize("conf", [0.0, 0.001, 0.25, 0.9, 1.0])
def test_candidates_give_the_same_detections_as_full_decoding(small: Predictor, conf: float) -> None:
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        raw = small.model(images)
        options = {"conf": conf, "iou": 0.45, "max_det": 300, "multi_label": True}
        all_rows = non_max_suppression(small.model.decode(raw), **options)
        few_rows = non_max_suppression(decode_candidates(small.model.head, raw, conf), **options)
    for every, few in zip(all_rows, few_rows, strict=True):
        torch.testing.assert_close(every.xyxy, few.xyxy)
        torch.testing.assert_close(every.confidence, few.confidence)
        assert torch.equal(every.class_id, few.class_id)


def test_candidates_of_a_darknet_head() -> None:
    """Its scales may have different numbers of anchors, and its box formula is another one."""
    head = DarknetDetect(2, [[10, 14, 23, 27], [81, 82]], (1.0, 1.05), (False, True))
    head.place((16, 32))
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(3, 2, 4, 6, 7, generator=generator), torch.randn(3, 1, 2, 3, 7, generator=generator)]
    for rows, candidates in zip(head.decode(raw), decode_candidates(head, raw, 0.5), strict=True):
        torch.testing.assert_close(candidates[candidates[:, 4] > 0.5], rows[rows[:, 4] > 0.5])
        assert len(candidates) < len(rows)


def test_detections_do_not_depend_on_the_batch(small: Predictor) -> None:
    inputs = [small.preprocess(make_image(seed=i)) for i in range(3)]
    for alone, together in zip((small.predict([c])[0] for c in inputs), small.predict(inputs), strict=True):
        torch.testing.assert_close(alone.xyxy, together.xyxy, atol=1e-3, rtol=1e-4)
        assert torch.equal(alone.class_id, together.class_id)


@pytest.mark.parametrize("batch", [1, 4])
def test_results_keep_the_input_order(run: Runner, tmp_path: Path, batch: int) -> None:
    from tests.inference.conftest import save_image

    for i in range(17):
        save_image(tmp_path / "in" / f"{i:02}.png", 64 if i % 5 else 32, 64, seed=i)
    done = run(tmp_path / "in", json=True, batch=batch, nosave=True)
    names = [Path(json.loads(line)["source"]).stem for line in done.lines]
    assert names == [f"{i:02}" for i in range(17)]


def test_an_image_of_a_rare_size_does_not_hold_up_the_others(run: Runner, tmp_path: Path) -> None:
    """It waits for others of its size only as long as the results that wait behind it have room."""
    from tests.inference.conftest import save_image

    for i in range(80):
        save_image(tmp_path / "in" / f"{i:02}.png", 64 if i % 40 else 32, 64, seed=i)
    done = run(tmp_path / "in", json=True, batch=2, nosave=True)
    assert [Path(json.loads(line)["source"]).stem for line in done.lines] == [f"{i:02}" for i in range(80)]


def test_an_error_in_the_network_ends_the_run_with_complete_files(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.inference.conftest import save_image

    for i in range(40):
        save_image(tmp_path / "in" / f"{i:02}.png", 64, 64, seed=i)
    predict, calls = Predictor.predict, itertools.count()

    def fail_at_the_tenth(*args: object, **options: object) -> list[Detections]:
        if next(calls) == 9:
            raise RuntimeError("out of memory")
        return predict(*args, **options)

    monkeypatch.setattr(Predictor, "predict", fail_at_the_tenth)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path / "in", save_json=True, save_csv=True)
    folder = tmp_path / "runs" / "exp"
    entries, images = json.loads((folder / "predictions.json").read_text()), list(folder.glob("*.png"))
    assert 0 < len(images) < 40
    assert len({entry["file_name"] for entry in entries}) == len(images)


def test_filtering_by_class(tiny: Path) -> None:
    predictor = Predictor(TorchRuntime(load_weights(tiny).build_model(), CPU), CPU, Settings((64, 64), classes=(0,)))
    (found,) = predictor.predict([predictor.preprocess(make_image())])
    assert set(found.class_id.tolist()) == {0}


def test_class_agnostic_nms() -> None:
    rows = torch.tensor([[[50.0, 50, 20, 20, 0.9, 0.9, 0], [51, 50, 20, 20, 0.8, 0, 0.9]]])
    counts = [
        len(non_max_suppression(rows, conf=0.25, iou=0.45, max_det=9, multi_label=False, agnostic=agnostic)[0])
        for agnostic in (False, True)
    ]
    assert counts == [2, 1]


def test_tta_boxes_are_mapped_back() -> None:
    """A stand-in network that returns the center of the bright area finds it at the same place in every pass."""

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        rows = []
        for image in images:
            y, x = (image[0] > 0.9).nonzero().float().mean(0)
            rows.append(torch.tensor([[float(x) + 0.5, float(y) + 0.5, 10.0, 10.0, 0.9, 0.9]]))
        return rows

    image = torch.zeros(1, 3, 96, 128)
    image[:, :, 20:40, 70:110] = 1
    (rows,) = augmented_rows(forward, image, 32)
    assert rows.shape == (3, 6)
    torch.testing.assert_close(rows[:, :2], torch.tensor([[90.0, 30.0]]).expand(3, 2), atol=1.0, rtol=0)
    torch.testing.assert_close(rows[:, 2], torch.tensor([10.0, 10 / 0.83, 10 / 0.67]), atol=0.3, rtol=0)


def test_tta_keeps_the_detections_of_a_plain_pass(reference: Path, published: Predictor) -> None:
    path = sorted((reference / "datasets/coco128/images/val2017").iterdir())[0]
    more = Predictor(published.runtime, CPU, Settings(augment=True))
    (plain,), (augmented,) = (p.predict([p.preprocess(read_image(path))]) for p in (published, more))
    assert same(plain, augmented, 0.5) >= 0.8 * len(plain)
    assert len(augmented) >= len(plain) - 1


@pytest.mark.parametrize(
    ("size", "count"), [((640, 640), 0), ((641, 640), 2), ((1280, 1280), 9), ((100, 2000), 4), ((2160, 3840), 32)]
)
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], count: int) -> None:
    tiles = split_into_tiles(*size, 640)
    assert len(tiles) == count
    seen = np.zeros(size, bool)
    for tile in tiles:
        assert 0 <= tile.left < tile.right <= size[1]
        assert 0 <= tile.top < tile.bottom <= size[0]
        seen[tile.top : tile.bottom, tile.left : tile.right] = True
    assert seen.all() or not tiles
    lefts = sorted({tile.left for tile in tiles})
    assert all(b - a <= 640 * 0.8 + 1 for a, b in itertools.pairwise(lefts))


def detections(rows: list[list[float]]) -> Detections:
    columns = torch.tensor(rows).reshape(-1, 6)
    return Detections(columns[:, :4], columns[:, 4], columns[:, 5].long(), ("a", "b"))


def test_merging_tiles() -> None:
    left, right = Tile(0, 0, 100, 100), Tile(80, 0, 180, 100)
    whole = detections([[10, 10, 60, 90, 0.6, 0]])
    found = merge_tiles(
        whole,
        [
            # the large one again, an object that both tiles see whole, one cut by the edge and seen whole by the other,
            # and one that neither sees whole
            (
                left,
                detections(
                    [
                        [11, 10, 60, 90, 0.7, 0],
                        [82, 10, 96, 20, 0.8, 1],
                        [85, 40, 100, 60, 0.9, 0],
                        [60, 70, 100, 80, 0.5, 1],
                    ]
                ),
            ),
            (right, detections([[2, 10, 16, 20, 0.7, 1], [5, 40, 45, 60, 0.8, 0], [0, 70, 30, 81, 0.6, 1]])),
        ],
        (100, 180),
        iou=0.45,
        max_det=10,
        agnostic=False,
    )
    boxes = {tuple(round(v) for v in box) for box in found.xyxy.tolist()}
    assert boxes == {(11, 10, 60, 90), (82, 10, 96, 20), (85, 40, 125, 60), (60, 70, 110, 81)}
    assert found.names == ("a", "b")


def test_tiling_finds_small_objects_in_large_images(reference: Path, published: Predictor) -> None:
    """A photograph in a corner of a large gray image: too small in a single pass, found in tiles."""
    path = sorted((reference / "datasets/coco128/images/val2017").iterdir())[0]
    photograph = read_image(path)
    canvas = np.full((1200, 1800, 3), 114, np.uint8)
    canvas[700 : 700 + photograph.shape[0], 1100 : 1100 + photograph.shape[1]] = photograph
    tiled = Predictor(published.runtime, CPU, Settings(tile=640))
    (reference_found,), (single,) = (published.predict([published.preprocess(p)]) for p in (photograph, canvas))
    found = tiled.predict_tiled(canvas, batch=4)
    moved = Detections(
        reference_found.xyxy + torch.tensor([1100.0, 700.0] * 2), reference_found.confidence, reference_found.class_id
    )
    assert same(moved, found, 0.5) >= 0.7 * len(moved)
    assert same(moved, found, 0.5) > same(moved, single, 0.5)


def test_the_command_tiles(run: Runner, tmp_path: Path) -> None:
    from tests.inference.conftest import save_image

    done = run(save_image(tmp_path / "a.png", 150, 200), tile=-1, max_det=50, json=True, visualize=True)
    assert len(json.loads(done.lines[0])["detections"]) > 2
    assert "tile: 64" in (done.folder / "opt.yaml").read_text()
