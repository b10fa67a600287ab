from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from emulated_mps import EmulatedMPS, module_on_mps

from yolo_cli.batch import Batch, Detections
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.label_index import build_index
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, Evaluation, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.loss.detection import DetectionLoss, scaled_loss_weights
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Silent

IMG = (64, 64)


@pytest.fixture
def dataset() -> EvalDataset:
    spec = prepare(load_spec("shapes"), Silent())
    files = split_files(spec, "val")[:8]
    index = build_index(files, 3, strict=True, cache_dir=None, workers=0, progress=None)
    return EvalDataset(val_loader(index, img=IMG, batch=4, rect=False), index)


def evaluate_on(device: str, dataset: EvalDataset) -> tuple[Evaluation, torch.Tensor]:
    """The evaluation and all detections."""
    torch.manual_seed(0)
    model = fuse(DetectionModel(find_architecture("n").with_classes(3)).eval())
    hyp = Hyperparameters()
    weights = scaled_loss_weights(hyp, 3, 3, IMG)
    evaluator = Evaluator(["circle", "square", "triangle"])
    options = EvalOptions(conf=0.0001, max_det=20)
    rows: list[torch.Tensor] = []

    def observe(number: int, batch: Batch, detections: Sequence[Detections]) -> None:
        assert {d.xyxy.device.type for d in detections} == {device}
        rows.extend(torch.column_stack((d.xyxy, d.confidence, d.class_id)).cpu() for d in detections)

    with EmulatedMPS() if device == "mps" else nullcontext():
        model = module_on_mps(model) if device == "mps" else model
        loss = DetectionLoss.from_head(model.head, hyp, weights)
        target = torch.device(device)
        evaluation = evaluate(
            model, dataset, evaluator, options, device=target, reporter=Silent(), loss=loss, observe=observe
        )
    return evaluation, torch.cat(rows)


def test_evaluation_on_mps_equals_that_on_the_cpu(dataset: EvalDataset) -> None:
    (on_cpu, detections), (on_mps, detections_on_mps) = evaluate_on("cpu", dataset), evaluate_on("mps", dataset)
    assert on_mps.losses == pytest.approx(on_cpu.losses)
    assert len(detections) == 8 * 20
    torch.testing.assert_close(detections_on_mps, detections)
    assert on_mps.metrics.map50_95 == on_cpu.metrics.map50_95
