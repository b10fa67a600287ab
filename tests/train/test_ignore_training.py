"""Training with unlabeled objects inside ignore regions."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from tests.recording import Recording
from yolo_cli import load
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig

SIDE = 128
SQUARE = 1


def draw_dataset(folder: Path, hidden: str) -> Path:
    """Circles and squares. Half of the squares to train on have no box; `hidden`: they are "ignored" or "unlabeled"."""
    for split, count in (("train", 104), ("val", 24)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            random = np.random.default_rng([len(split), i])
            image = np.full((SIDE, SIDE, 3), random.integers(40, 216, 3), np.uint8)
            rows = []
            for left, top in ((2, 2), (66, 2), (2, 66), (66, 66)):
                class_id, side = int(random.integers(2)), int(random.integers(24, 44))
                x, y = (int(v) for v in np.array([left, top]) + random.integers(0, 60 - side, 2))
                color = tuple(int(v) for v in random.choice([0, 255], 3))
                if class_id == SQUARE:
                    cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), color, -1)
                else:
                    cv2.circle(image, (x + side // 2, y + side // 2), side // 2, color, -1)
                if split == "train" and class_id == SQUARE and random.random() < 0.5:
                    if hidden == "unlabeled":
                        continue
                    class_id = -1
                box = (x + side / 2, y + side / 2, side, side)
                rows.append(f"{class_id} " + " ".join(f"{value / SIDE:.6f}" for value in box))
            cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image)
            (folder / f"labels/{split}/{i}.txt").write_text("\n".join(rows))
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": ["circle", "square"]}
    (folder / "data.yaml").write_text(json.dumps(content))
    return folder


def confidence_of_squares(weights: Path, folder: Path) -> np.ndarray:
    """For each square, the highest confidence of a detection of it with an IoU of at least 0.5, or 0."""
    model = load(weights, img=SIDE, conf=0.05, device="cpu")
    confidences = []
    for path in sorted((folder / "images/val").glob("*.png")):
        found = model(path)
        for row in (folder / f"labels/val/{path.stem}.txt").read_text().splitlines():
            class_id, cx, cy, w, h = (float(value) for value in row.split())
            if class_id == SQUARE:
                box = torch.tensor([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]]) * SIDE
                same = (found.class_id == SQUARE) & (box_iou(box, found.xyxy.float())[0] >= 0.5)
                confidences.append(float(found.confidence[same].max()) if same.any() else 0.0)
    return np.array(confidences)


@pytest.mark.slow
def test_recall_does_not_collapse_if_half_of_a_class_is_ignored(reference: Path, tmp_path: Path) -> None:
    confidences = {}
    for hidden in ("ignored", "unlabeled"):
        folder = draw_dataset(tmp_path / hidden, hidden)
        config = TrainConfig(
            data=str(folder / "data.yaml"),
            weights=str(reference / "weights/yolov5n.pt"),
            img=(SIDE, SIDE),
            epochs=10,
            batch=8,
            workers=0,
            device="cpu",
            noplots=True,
            noval=True,
            project=str(tmp_path),
            name=f"run-{hidden}",
        )
        train(config, Recording())
        confidences[hidden] = confidence_of_squares(tmp_path / f"run-{hidden}/weights/last.pt", folder)
    assert np.mean(confidences["ignored"] >= 0.5) >= 0.85
    # As background, the same squares do harm.
    assert confidences["unlabeled"].mean() < confidences["ignored"].mean() - 0.1
