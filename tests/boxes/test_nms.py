import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated_mps import EmulatedMPS, on_mps
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_cli.batch import Detections
from yolo_cli.boxes.batched_nms import suppress_batch
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.greedy_nms import nms, operator_libraries
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.boxes.nms_limits import NMSLimits
from yolo_cli.weights.load import load_weights


def greedy(xyxy: torch.Tensor, confidence: torch.Tensor, class_id: torch.Tensor, iou: float) -> list[int]:
    """NMS by its definition, one box at a time."""
    overlap = pairwise_iou(xyxy.double(), xyxy.double())
    kept: list[int] = []
    for i in confidence.argsort(descending=True, stable=True).tolist():
        if all(class_id[j] != class_id[i] or overlap[i, j] <= iou for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.3, 0.45, 0.6]))
def test_nms_equals_its_definition(seed: int, count: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    low = torch.from_numpy(rng.uniform(0, 60, (count, 2)))
    xyxy = torch.cat((low, low + torch.from_numpy(rng.uniform(5, 60, (count, 2)))), 1).float()
    confidence = torch.from_numpy(rng.permutation(count) / max(count, 1)).float()
    class_id = torch.from_numpy(rng.integers(0, 3, count))
    assert nms(xyxy, confidence, class_id, iou).tolist() == greedy(xyxy, confidence, class_id, iou)


@pytest.mark.parametrize(("count", "classes"), [(257, 1), (700, 4), pytest.param(1500, 80, marks=pytest.mark.slow)])
def test_nms_in_groups_of_classes_equals_its_definition(count: int, classes: int) -> None:
    rng = np.random.default_rng(count)
    low = torch.from_numpy(rng.uniform(0, 200, (count, 2)))
    xyxy = torch.cat((low, low + torch.from_numpy(rng.uniform(5, 60, (count, 2)))), 1).float()
    confidence = torch.from_numpy(rng.integers(1, 40, count) / 40).float()
    class_id = torch.from_numpy(rng.integers(0, classes, count))
    assert nms(xyxy, confidence, class_id, 0.5).tolist() == greedy(xyxy, confidence, class_id, 0.5)


def test_a_high_class_id_does_not_cost_precision() -> None:
    """The offset of a class is much larger than the difference between the two IoUs."""
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 60.01], [0.0, 0.0, 100.0, 59.99]])
    for class_id in (0, 5_000):
        ids = torch.full((3,), class_id)
        kept = nms(box, torch.tensor([0.9, 0.8, 0.7]), ids, 0.6)
        assert kept.tolist() == [0, 2]


def decoded(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([rows])


def test_confidence_is_objectness_times_class() -> None:
    (found,) = non_max_suppression(
        decoded([[50, 50, 20, 20, 0.8, 0.5, 0.25]]), conf=0.1, iou=0.5, max_det=10, multi_label=True
    )
    assert found.class_id.tolist() == [0, 1]
    torch.testing.assert_close(found.confidence, torch.tensor([0.4, 0.2]))
    assert found.xyxy[0].tolist() == [40, 40, 60, 60]


def test_single_label_keeps_the_most_confident_class() -> None:
    (found,) = non_max_suppression(
        decoded([[50, 50, 20, 20, 0.8, 0.5, 0.6]]), conf=0.1, iou=0.5, max_det=10, multi_label=False
    )
    assert found.class_id.tolist() == [1]


def test_classes_are_filtered() -> None:
    rows = decoded([[50, 50, 20, 20, 0.8, 0.5, 0.6]])
    (found,) = non_max_suppression(rows, conf=0.1, iou=0.5, max_det=10, multi_label=False, classes=torch.tensor([0, 7]))
    assert found.class_id.tolist() == [0]


def test_the_max_det_most_confident_remain() -> None:
    rows = [[20.0 * i, 50, 10, 10, 0.1 + 0.01 * i, 1.0] for i in range(50)]
    (found,) = non_max_suppression(decoded(rows), conf=0.05, iou=0.5, max_det=7, multi_label=True)
    assert len(found) == 7
    assert found.confidence.tolist() == sorted(found.confidence.tolist(), reverse=True)
    assert found.confidence[0].item() == pytest.approx(0.59, abs=1e-6)


def test_no_box_above_the_confidence_threshold() -> None:
    for multi_label in (True, False):
        (found,) = non_max_suppression(
            decoded([[5, 5, 1, 1, 0.1, 0.1]]), conf=0.5, iou=0.5, max_det=9, multi_label=multi_label
        )
        assert len(found) == 0
        assert found.xyxy.shape == (0, 4)


def test_detections_equal_the_published_ones(reference: Path) -> None:
    model = load_weights(reference / "weights/yolov5n.pt").build_model().eval()
    stored = np.load(reference / "reference/forward/yolov5n_pretrained_000000000034.npz")
    with torch.inference_mode():
        raw = model(torch.from_numpy(stored["input_uint8"]).float() / 255)
        rows = model.decode(raw)
    (found,) = non_max_suppression(rows, conf=0.25, iou=0.45, max_det=1000, multi_label=False)
    np.testing.assert_allclose(raw[2].numpy(), stored["raw2"], atol=1e-3)
    np.testing.assert_allclose(rows.numpy()[:, ::7], stored["decoded"].astype(np.float32), atol=0.5, rtol=1e-3)
    expected = stored["nms_conf25_iou45"]
    np.testing.assert_allclose(found.xyxy.numpy(), expected[:, :4], atol=0.01)
    np.testing.assert_allclose(found.confidence.numpy(), expected[:, 4], atol=1e-4)
    assert found.class_id.tolist() == expected[:, 5].tolist()


def test_torchvisions_operators_load_without_its_package() -> None:
    """If this fails with a new torchvision: see where it has its operators now, and change `operator_libraries`."""
    assert operator_libraries(), f"torchvision {version('torchvision')} has no file _C*.so or _C*.pyd"
    code = (
        "import sys; from yolo_cli.boxes.greedy_nms import load_operator; load_operator();"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", f"torchvision {version('torchvision')}: its library did not register nms"


@pytest.mark.slow
@pytest.mark.parametrize("libraries", ["()", "(nms.Path('no-such-library.so'),)"], ids=["not found", "does not load"])
def test_torchvision_is_imported_if_its_library_cannot_be_used(libraries: str) -> None:
    code = (
        "import sys, torch; from yolo_cli.boxes import greedy_nms as nms;"
        f"nms.operator_libraries = lambda: {libraries}; nms.load_operator();"
        "torch.ops.torchvision.nms; print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("count", [0, 60, 700])
def test_nms_needs_no_float64_on_mps(count: int) -> None:
    rng = np.random.default_rng(count)
    low = torch.from_numpy(rng.uniform(0, 200, (count, 2)))
    xyxy = torch.cat((low, low + torch.from_numpy(rng.uniform(5, 60, (count, 2)))), 1).float()
    confidence, class_id = torch.from_numpy(rng.random(count)).float(), torch.from_numpy(rng.integers(0, 4, count))
    with EmulatedMPS():
        kept = nms(on_mps(xyxy), on_mps(confidence), on_mps(class_id), 0.5)
    assert kept.device.type == "mps"
    assert kept.cpu().tolist() == nms(xyxy, confidence, class_id, 0.5).tolist()


def predictions(rng: np.random.Generator, images: int, rows: int, classes: int) -> torch.Tensor:
    """Decoded rows that overlap a lot, with many equal objectness values and class probabilities."""
    boxes = np.concatenate([rng.uniform(0, 200, (images, rows, 2)), rng.uniform(20, 90, (images, rows, 2))], 2)
    scores = rng.integers(1, 21, (images, rows, 1 + classes)) / 20
    return torch.from_numpy(np.concatenate([boxes, scores], 2)).float()


def by_definition(rows: torch.Tensor, limits: NMSLimits) -> Detections:
    """Detections of one image from all of its boxes, one at a time."""
    scores = limits.scores(rows)
    is_box = (scores > torch.tensor(limits.conf)) & (rows[:, 4:5] > torch.tensor(limits.conf).min())
    if not limits.multi_label:
        is_box &= torch.arange(scores.shape[1]) == scores.argmax(1, keepdim=True)
    row, class_id = is_box.nonzero(as_tuple=True)
    xyxy, confidence = cxcywh_to_xyxy(rows[row, :4]), scores[row, class_id]
    group = torch.zeros_like(class_id) if limits.agnostic else class_id
    kept = greedy(xyxy, confidence, group, limits.iou)[: limits.max_det]
    return Detections(xyxy[kept], confidence[kept], class_id[kept])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.sampled_from([0, 1, 9, 60]),
    conf=st.sampled_from([0.05, 0.5, (0.2, 0.7, 0.4)]),
    max_det=st.sampled_from([1, 2, 5, 300]),
    multi_label=st.booleans(),
    agnostic=st.booleans(),
    chosen=st.sampled_from([None, [0, 2, 7]]),
)
def test_few_boxes_are_enough_for_max_det(
    seed: int,
    rows: int,
    conf: float | tuple[float, ...],
    max_det: int,
    multi_label: bool,
    agnostic: bool,
    chosen: list[int] | None,
) -> None:
    """One image at a time and a whole batch give the detections that the definition gives for all boxes."""
    decoded = predictions(np.random.default_rng(seed), 3, rows, 3)
    classes = None if chosen is None else torch.tensor(chosen)
    limits = NMSLimits(conf, 0.5, max_det, multi_label=multi_label, agnostic=agnostic, classes=classes)
    one_by_one = non_max_suppression(
        decoded, conf=conf, iou=0.5, max_det=max_det, multi_label=multi_label, agnostic=agnostic, classes=classes
    )
    complete = suppress_batch(decoded, limits)
    partial = suppress_batch(decoded, limits, top_rows=20, top_candidates=30)
    for image, found, batched, few in zip(decoded, one_by_one, complete, partial, strict=True):
        expected = by_definition(image, limits)
        assert batched is not None
        for detections in (found, batched, few or found):
            assert torch.equal(detections.xyxy, expected.xyxy)
            assert torch.equal(detections.confidence, expected.confidence)
            assert torch.equal(detections.class_id, expected.class_id)


def test_a_batch_tells_which_images_need_more_boxes() -> None:
    decoded = predictions(np.random.default_rng(0), 2, 60, 3)
    decoded[1, 20:, 4] = 0  # 60 boxes
    few = {"top_rows": 20, "top_candidates": 60}
    crowded, sparse = suppress_batch(decoded, NMSLimits(0.01, 0.5, 300, multi_label=True), **few)
    assert crowded is None
    assert sparse is not None
    assert all(one is not None for one in suppress_batch(decoded, NMSLimits(0.01, 0.5, 3, multi_label=True), **few))
    assert suppress_batch(decoded, NMSLimits(0.01, 0.5, 300, multi_label=True), top_candidates=59)[1] is None


def test_images_without_boxes_in_a_batch() -> None:
    found = suppress_batch(torch.zeros(3, 30, 8), NMSLimits(0.01, 0.5, 300, multi_label=True), top_rows=5)
    assert [len(one) for one in found if one is not None] == [0, 0, 0]


def test_the_batch_of_a_network_equals_its_images() -> None:
    decoded = predictions(np.random.default_rng(5), 4, 3000, 4)
    limits = NMSLimits(0.001, 0.6, 100, multi_label=True)
    alone = non_max_suppression(decoded, conf=0.001, iou=0.6, max_det=100, multi_label=True)
    for one, batched in zip(alone, suppress_batch(decoded, limits), strict=True):
        assert batched is not None
        assert torch.equal(batched.xyxy, one.xyxy)
        assert torch.equal(batched.class_id, one.class_id)
