"""The dataset of a training: both splits, indexed."""

from dataclasses import dataclass
from typing import Any

from yolo_cli.config import TrainConfig
from yolo_cli.dataset.splits import Split, class_names, load_split, prepare_dataset
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter


@dataclass(frozen=True, slots=True)
class TrainData:
    """The two splits of a training, and the names of their classes."""

    train: Split
    val: Split
    names: tuple[str, ...]

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the dataset: class names, and the images and labels of both splits."""
        splits = {f"{split.name} images or labels": split.index.fingerprint for split in (self.train, self.val)}
        return {"class names": list(self.names), **splits}


def open_train_data(config: TrainConfig, workers: int, reporter: Reporter) -> TrainData:
    """Index both splits of `--data`. Raises UserError if they cannot be read, or there is nothing to learn."""
    spec = prepare_dataset(config.data, reporter)
    train, val = (
        load_split(spec, split, single_cls=config.single_cls, strict=config.strict, workers=workers, reporter=reporter)
        for split in ("train", "val")
    )
    if not len(train.index.boxes):
        raise UserError("the training split has no boxes", where=spec.source, fix="check where the labels are")
    return TrainData(train, val, class_names(spec, single_cls=config.single_cls))
