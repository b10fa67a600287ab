"""The end of a training: the best checkpoint, and the results that are written and printed."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from yolo_cli import plots
from yolo_cli.distributed.world import World
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.evaluate import Evaluation
from yolo_cli.evaluation.evaluator import TOO_MANY_BOXES
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation, save_evaluation
from yolo_cli.loss.losses import LOSSES
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter
from yolo_cli.report.write import try_report
from yolo_cli.run import reports, run_plots
from yolo_cli.train.setup import TrainSetup
from yolo_cli.weights.load import load_weights


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The result of a training; `evaluation` is that of the best checkpoint."""

    folder: Path
    evaluation: Evaluation
    epochs: int
    best_epoch: int
    seconds: float


def load_best(folder: Path, like: DetectionModel, device: torch.device, world: World) -> tuple[DetectionModel, int]:
    """The model of best.pt in eval mode, and its epoch. The main process reads them; `like` is copied by the others."""
    best = load_weights(folder / "weights" / "best.pt") if world.is_main else None
    model = best.build_model().to(device).eval() if best else copy.deepcopy(like)
    world.broadcast_(model.state_dict().values())
    return model, world.broadcast_object(best.epoch if best else -1)


def report_results(
    result: TrainResult,
    setup: TrainSetup,
    predictions: EvalData | None,
    brightness: Float[np.ndarray, " images"],
    reporter: Reporter,
) -> None:
    """Write results.json, the plots and the report, and print the table. For the main process only.

    `predictions` are those of the best checkpoint on the validation split, or None if they were too many to keep, which
    leaves out the report. `brightness` is that of its images.
    """
    folder, evaluation, data, device = result.folder, result.evaluation, setup.data, setup.device
    if not setup.config.noplots:
        run_plots.write_curves(folder, evaluation.metrics, data.names)
        second_loss = LOSSES[setup.config.loss].second_part[1]
        plots.results_figure(folder / "results.csv", folder / "results.png", second_loss)
    reports.write_results(
        folder,
        evaluation,
        device=device,
        splits=(data.train, data.val),
        extra={
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "peak_gpu_gigabytes": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
        },
    )
    if predictions is None:
        reporter.warn(f"{TOO_MANY_BOXES}: no evaluation.npz, no report")
    else:
        saved = SavedEvaluation.of(
            predictions, data.val.index, None, names=data.names, split=data.val.name, brightness=brightness
        )
        save_evaluation(folder, saved)
        if not setup.config.noplots:
            try_report(folder, saved, evaluation.metrics, reporter)
    reports.print_table(evaluation, reporter.info, verbose=False)
    minutes = result.seconds / 60
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    reporter.info(f"{epochs} in {minutes:.1f} minutes; the best was epoch {result.best_epoch + 1}")
    reporter.info(f"results in {folder}")
