from yolo_cli.dataset.label_index import build_index
from yolo_cli.dataset.splits import Split


def test_summary_counts_images_boxes_and_problems(make_images) -> None:
    images = make_images([(20, 20)] * 3, ["0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n8 .5 .5 .1 .1\n", None, ""])
    images[2].write_bytes(b"")
    index = build_index(images, 3, strict=False, cache_dir=None, workers=0, progress=None)
    expected = "train: 2 images, 1 box, 1 background; 1 file and 2 label rows left out, see dataset_report.json"
    assert Split("train", index, len(images)).summary() == expected
