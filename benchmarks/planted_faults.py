"""Copies of a dataset with planted faults, each of which is known, for `check.py`."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COPIES = ("re-encoded", "resized", "brightened", "resized and brightened")
EXACT = ("unreadable-image", "label-syntax", "label-range", "label-class", "label-without-image", "leak")


@dataclass(frozen=True)
class Planted:
    """A label error: the image's name, what was done, and the box (cx, cy, w, h as fractions) where it is."""

    image: str
    kind: str  # missing-label, wrong-class or misplaced-box
    box: tuple[float, ...]


def copy_dataset(source: Path, folder: Path) -> Path:
    """A copy whose images are links; returns its data.yaml."""
    shutil.copytree(source / "labels", folder / "labels")
    for split in (source / "images").iterdir():
        (folder / "images" / split.name).mkdir(parents=True)
        for image in split.iterdir():
            os.symlink(image, folder / "images" / split.name / image.name)
    shutil.copy(source / "data.yaml", folder)
    return folder / "data.yaml"


def plant_exact(folder: Path, each: int, seed: int) -> dict[str, int]:
    """Plant `each` faults of every exact kind in the training split; returns their numbers."""
    random = np.random.default_rng(seed)
    images = sorted((folder / "images/train").iterdir())
    chosen = [images[i] for i in random.permutation(len(images))[: each * 6]]
    groups = [chosen[i * each : (i + 1) * each] for i in range(6)]

    def label(image: Path) -> Path:
        return folder / "labels/train" / f"{image.stem}.txt"

    for i, image in enumerate(groups[0]):
        data = image.read_bytes()
        image.unlink()
        cut = len(data) * (1 + i % 3) // 4
        image.write_bytes((data[:cut], b"", data[:cut] + b"\xff\xd9")[i % 3])
    rows = {1: "0 0.5 0.5 0.1\n", 2: "0 1.7 0.5 0.1 0.1\n", 3: "99 0.5 0.5 0.1 0.1\n"}
    for number, row in rows.items():
        for image in groups[number]:
            with label(image).open("a") as file:
                file.write(row)
    for image in groups[4]:
        (folder / "labels/train" / f"gone_{image.stem}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    for image in groups[5]:
        shutil.copy(image, folder / "images/val" / f"leak_{image.name}")
        shutil.copy(label(image), folder / "labels/val" / f"leak_{image.stem}.txt")
    return dict.fromkeys(EXACT, each)


def plant_copies(folder: Path, kind: str, count: int, seed: int) -> set[str]:
    """Add changed copies of training images to the validation split; returns their names."""
    import cv2

    random = np.random.default_rng(seed)
    images = sorted((folder / "images/train").iterdir())
    names = set()
    for i in random.permutation(len(images))[:count].tolist():
        pixels = cv2.imread(str(images[i]))
        assert pixels is not None
        quality = int(random.integers(30, 80)) if kind == "re-encoded" else 85
        if "resized" in kind:
            factor = float(random.uniform(0.3, 0.9))
            pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if "brightened" in kind:
            changed = pixels.astype(np.float32) * random.uniform(0.6, 1.5) + random.uniform(-15, 15)
            pixels = np.clip(changed, 0, 255).astype(np.uint8)
        name = f"copy_{i}.jpg"
        cv2.imwrite(str(folder / "images/val" / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        shutil.copy(folder / "labels/train" / f"{images[i].stem}.txt", folder / f"labels/val/copy_{i}.txt")
        names.add(name)
    return names


def plant_label_errors(folder: Path, share: float, classes: int, seed: int) -> list[Planted]:
    """Change a share of the boxes of the training split: removed, of another class, moved or scaled."""
    random = np.random.default_rng(seed)
    kinds = ["missing-label", "misplaced-box", *(["wrong-class"] if classes > 1 else [])]
    boxes = [
        (file, line)
        for file in sorted((folder / "labels/train").glob("*.txt"))
        for line, row in enumerate(file.read_text().splitlines())
        if row.strip()
    ]
    chosen = [boxes[i] for i in random.permutation(len(boxes))[: round(share * len(boxes))].tolist()]
    planted = []
    removed: list[tuple[Path, int]] = []
    for i, (file, line) in enumerate(chosen):
        rows = file.read_text().splitlines()
        class_id, *box = rows[line].split()
        cx, cy, w, h = map(float, box)
        kind = kinds[i % len(kinds)]
        planted.append(Planted(file.stem, kind, (cx, cy, w, h)))
        if kind == "missing-label":
            removed.append((file, line))
        elif kind == "wrong-class":
            class_id = str((int(class_id) + int(random.integers(1, classes))) % classes)
        elif random.random() < 0.5:
            angle = random.uniform(0, 2 * np.pi)
            cx, cy = cx + 0.5 * w * np.cos(angle), cy + 0.5 * h * np.sin(angle)
        else:
            gain = random.choice([0.6, 1.6])
            w, h = w * gain, h * gain
        low, high = np.clip([cx - w / 2, cy - h / 2], 0, 1), np.clip([cx + w / 2, cy + h / 2], 0, 1)
        values = [*(low + high) / 2, *(high - low)]
        rows[line] = f"{class_id} {' '.join(f'{value:.6f}' for value in values)}"
        file.write_text("\n".join(rows) + "\n")
    for file, line in sorted(removed, key=lambda each: -each[1]):
        rows = file.read_text().splitlines()
        del rows[line]
        file.write_text("".join(f"{row}\n" for row in rows))
    return planted


def write_folds(folder: Path, names: list[str]) -> list[Path]:
    """data.yaml files that train on one half of the training split each, and validate on the other half."""
    images = sorted((folder / "images/train").iterdir())
    halves = [images[0::2], images[1::2]]
    specs = []
    for i, half in enumerate(halves):
        (folder / f"half{i}.txt").write_text("".join(f"{image}\n" for image in half))
    for i in range(2):
        spec = folder / f"fold{i}.yaml"
        spec.write_text(f"path: {folder}\ntrain: half{i}.txt\nval: half{1 - i}.txt\nnames: {names}\n")
        specs.append(spec)
    return specs
