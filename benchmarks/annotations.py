"""Opening annotations of the size of COCO's instances_val2017: 5,000 images, 36,781 boxes with polygons.

The script generates the files, deterministic: tiny JPEGs, one COCO JSON, and the same boxes as Pascal VOC XML and as
YOLO txt. Each is opened as a training does, in this process: first without a cache, then from the cache. No peer.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

IMAGES, BOXES = 5000, 36_781


def make_coco(folder: Path) -> None:
    """Write the images and instances_val2017.json."""
    import numpy as np
    import simplejpeg

    choice = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    content = simplejpeg.encode_jpeg(pixels, quality=50)
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for i in range(IMAGES):
        (folder / f"val2017/{i:012d}.jpg").write_bytes(content)
    images = [
        {"license": 1, "file_name": f"{i:012d}.jpg", "coco_url": "http://example.org/" + "x" * 40, "height": 480,
         "width": 640, "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://example.org/" + "x" * 40, "id": i}
        for i in range(IMAGES)
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for i in range(BOXES):
        x, y, w, h = (round(choice.uniform(1, 300), 2) for _ in range(4))
        polygon = [round(choice.uniform(0, 480), 2) for _ in range(44)]
        rows.append({"segmentation": [polygon], "area": w * h, "iscrowd": 0, "image_id": choice.randrange(IMAGES),
                     "bbox": [x, y, w, min(h, 170)], "category_id": choice.randint(1, 80), "id": i})  # fmt: skip
    categories = [{"supercategory": "thing", "id": i, "name": f"name {i}"} for i in range(1, 81)]
    document = {"info": {}, "licenses": [], "images": images, "annotations": rows, "categories": categories}
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(document))
    (folder / "data.yaml").write_text("val: annotations/instances_val2017.json\n")


def seconds(data: Path) -> tuple[float, int]:
    """Time to open the val split, and its boxes."""
    from yolo_cli.dataset.splits import load_split, prepare_dataset
    from yolo_cli.progress import Silent

    start = time.perf_counter()
    spec = prepare_dataset(str(data), Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=2, reporter=Silent())
    return time.perf_counter() - start, len(split.index.boxes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_coco(folder / "coco")
        from yolo_cli.commands.convert import run as convert
        from yolo_cli.config import ConvertConfig
        from yolo_cli.progress import Silent

        os.environ["YOLO_CACHE_DIR"] = str(folder / "cache")
        for to in ("voc", "yolo"):
            convert(ConvertConfig(str(folder / "coco/data.yaml"), str(folder / to), to=to), Silent())
        for name in ("coco", "voc", "yolo"):
            times: dict[str, list[float]] = {"first": [], "cached": []}
            for run in range(runs):
                os.environ["YOLO_CACHE_DIR"] = str(folder / f"cache-{name}-{run}")
                for measured in times.values():
                    taken, boxes = seconds(folder / name / "data.yaml")
                    measured.append(taken)
            first, cached = (statistics.median(measured) for measured in times.values())
            print(f"{name}: {IMAGES:,} images, {boxes:,} boxes: {first:.2f} s, from the cache {cached:.2f} s")


if __name__ == "__main__":
    main()
