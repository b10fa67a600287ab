"""Trains recipes side by side and says which is better: AP by recipe, with seeds, intervals and seconds.

    python benchmarks/recipes.py --work DIR --data cards raccoon --starts yolov5n.pt scratch:yolov5n
        --recipes auto published --epochs 10 30 --seeds 0 1 2

Every run is a `yolo train` of its own and is judged by `yolo val`; peers are judged by it, too. A run whose result is
in DIR is not repeated, so that the grid can be stopped and continued. The first recipe is the base of the differences.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from side_by_side import environment, peer_pythons

# What a recipe adds to the command line of `yolo train`.
RECIPES: dict[str, tuple[str, ...]] = {
    "auto": (),
    "published": ("--hyp", "scratch-low", "--optimizer", "SGD"),
    "sgd": ("--optimizer", "SGD"),
    "no-closing": ("--hyp", "auto,close_mosaic=0"),
    "closing": ("--hyp", "auto,close_mosaic=3"),
    "flat": ("--hyp", "auto,flat=0.5"),
    "by-epoch": ("--hyp", "auto,lr_per_batch=0"),
    "neighbors": ("--hyp", "auto,mosaic_window=128"),
    "all-images": ("--hyp", "auto,mosaic_window=0"),
    "ota": ("--loss", "ota"),
    "cls": ("--hyp", "auto,cls=2"),
    "tal": ("--cfg", "yolov5n-tal"),
}
PEERS = ("yolov5", "ultralytics")
RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """One training of the grid."""

    data: str
    start: str  # a weight file or name; or scratch:ARCHITECTURE
    recipe: str  # of RECIPES, or a peer
    epochs: int
    seed: int
    img: int
    batch: int

    @property
    def key(self) -> str:
        start = Path(self.start.replace(":", "-")).stem
        settings = f"e{self.epochs}-i{self.img}-b{self.batch}-s{self.seed}"
        return f"{short(self.data)}-{start}-{self.recipe}-{settings}"


def train_ours(run: Run, work: Path) -> tuple[Path, float]:
    """Train as a user does; the best weights and the seconds that it took."""
    command = [sys.executable, "-m", "yolo_cli", "train", "--data", run.data, "--epochs", str(run.epochs), "--img"]
    command += [str(run.img), "--batch", str(run.batch), "--seed", str(run.seed), "--noplots"]
    command += ["--project", str(work / "runs"), "--name", run.key, "--exist-ok", *RECIPES[run.recipe]]
    command += ["--cfg", run.start.removeprefix("scratch:")] if is_scratch(run) else ["--weights", run.start]
    seconds = timed(command, work / "logs" / f"{run.key}.log", environment(work))
    return work / "runs" / run.key / "weights" / "best.pt", seconds


def peer_data(data: Path, work: Path) -> Path:
    """A copy of a dataset for peers: they write caches beside the labels, and take `path` relative to elsewhere."""
    copy = work / "data" / short(str(data))
    if not copy.exists():
        shutil.copytree(data.parent, copy)
    spec = yaml.safe_load(data.read_text(encoding="utf-8")) | {"path": str(copy)}
    (copy / "data.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return copy / "data.yaml"


def train_peer(run: Run, work: Path, python: Path) -> tuple[Path, float]:
    """Train with a peer's own command line and defaults."""
    out, data = work / "peers", str(peer_data(Path(run.data), work))
    if run.recipe == "yolov5":
        start = ["--weights", "", "--cfg", f"{run.start.removeprefix('scratch:')}.yaml"]
        start = start if is_scratch(run) else ["--weights", run.start]
        command = [str(python.with_name("yolov5")), "train", "--data", data, "--epochs", str(run.epochs)]
        command += ["--img", str(run.img), "--batch", str(run.batch), "--seed", str(run.seed), "--device", "cpu"]
        command += ["--workers", "2", "--noplots", "--project", str(out), "--name", run.key, "--exist-ok", *start]
    else:
        model = f"{run.start.removeprefix('scratch:')}.yaml" if is_scratch(run) else run.start
        command = [str(python.with_name("yolo")), "detect", "train", f"data={data}", f"model={model}"]
        command += [f"epochs={run.epochs}", f"imgsz={run.img}", f"batch={run.batch}", f"seed={run.seed}", "device=cpu"]
        command += ["workers=2", "plots=False", f"project={out}", f"name={run.key}", "exist_ok=True"]
    seconds = timed(command, work / "logs" / f"{run.key}.log", environment(work, python))
    return out / run.key / "weights" / "best.pt", seconds


def timed(command: Sequence[str], log: Path, env: dict[str, str]) -> float:
    """Run a command with its output in a file; seconds. Raises CalledProcessError where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent, check=True)
    return time.perf_counter() - start


def evaluate(run: Run, weights: Path, work: Path) -> dict[str, float]:
    """AP of weights by our evaluator; the predictions are kept for the intervals."""
    command = [sys.executable, "-m", "yolo_cli", "val", "--weights", str(weights), "--data", run.data, "--img"]
    command += [
        str(run.img),
        "--noplots",
        "--save-json",
        "--project",
        str(work / "val"),
        "--name",
        run.key,
        "--exist-ok",
    ]
    timed(command, work / "logs" / f"{run.key}.val.log", environment(work))
    metrics = json.loads((work / "val" / run.key / "results.json").read_text(encoding="utf-8"))["metrics"]
    return {"AP": metrics["mAP_0.5:0.95"], "AP50": metrics["mAP_0.5"]}


def is_scratch(run: Run) -> bool:
    return run.start.startswith("scratch:")


def grid(args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, so that an unfinished grid has every recipe."""
    return [
        Run(data, start, recipe, epochs, seed, args.img, args.batch)
        for seed in args.seeds
        for epochs in args.epochs
        for data in args.data
        for start in args.starts
        for recipe in args.recipes
    ]


def perform(runs: Sequence[Run], work: Path, peers: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """The results of all runs by key; those that are not in the file yet are trained."""
    file = work / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    done = {record["key"]: record for record in map(json.loads, lines)}
    for number, run in enumerate(runs, start=1):
        if run.key in done:
            continue
        print(f"{number}/{len(runs)} {run.key}", flush=True)
        try:
            trained = train_peer(run, work, peers[run.recipe]) if run.recipe in PEERS else train_ours(run, work)
            record = {"key": run.key, **asdict(run), "seconds": trained[1], **evaluate(run, trained[0], work)}
        except subprocess.CalledProcessError as error:
            print(f"  failed ({error.returncode}); its log is in {work / 'logs'}", flush=True)
            continue
        done[run.key] = record
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
        print(f"  AP {record['AP']:.3f}  AP50 {record['AP50']:.3f}  {record['seconds']:.0f} s", flush=True)
    return done


def report(runs: Sequence[Run], done: dict[str, dict[str, Any]], work: Path) -> list[str]:
    """A table for each number of epochs and start: mean ± standard error over seeds, and the paired difference."""
    lines = []
    groups = sorted({(run.epochs, run.start) for run in runs})
    for epochs, start in groups:
        here = [run for run in runs if (run.epochs, run.start) == (epochs, start) and run.key in done]
        recipes = list(dict.fromkeys(run.recipe for run in here))
        datasets = list(dict.fromkeys(run.data for run in here))
        lines += [
            "",
            f"{epochs} epochs from {Path(start).name}",
            "",
            f"| recipe | {' | '.join(map(short, datasets))} | AP50 | seconds | AP to {recipes[:1]} (95%) |",
            f"|---|{'---|' * (len(datasets) + 3)}",
        ]
        for recipe in recipes:
            mine = {d: [done[r.key] for r in here if (r.recipe, r.data) == (recipe, d)] for d in datasets}
            cells = [mean_and_error([100 * r["AP"] for r in mine[d]]) for d in datasets]
            every = [record for records in mine.values() for record in records]
            ap50 = np.mean([100 * r["AP50"] for r in every])
            seconds = np.mean([r["seconds"] for r in every])
            against = "" if recipe == recipes[0] else paired(here, recipes[0], recipe, datasets, work)
            lines.append(f"| {recipe} | {' | '.join(cells)} | {ap50:.1f} | {seconds:.0f} | {against} |")
    return lines


def short(data: str) -> str:
    return Path(data).parent.name or data


def mean_and_error(values: Sequence[float]) -> str:
    if not values:
        return "–"
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{error} ({len(values)})"


def paired(runs: Sequence[Run], base: str, other: str, datasets: Sequence[str], work: Path) -> str:
    """The mean difference over datasets, its interval over (dataset, seed, image)."""
    from yolo_cli.evaluation.comparison import bootstrap, difference

    values, samples = [], []
    for data in datasets:
        seeds = [{r.seed for r in runs if (r.recipe, r.data) == (recipe, data)} for recipe in (base, other)]
        common = sorted(seeds[0] & seeds[1])
        if not common:
            continue
        scored = [
            [weighted_ap(r, work) for s in common for r in runs if (r.recipe, r.data, r.seed) == (recipe, data, s)]
            for recipe in (base, other)
        ]
        result = bootstrap(scored, resamples=RESAMPLES, threads=os.cpu_count() or 1)
        values.append(result.values[1, 0] - result.values[0, 0])
        samples.append(result.samples[1, :, 0] - result.samples[0, :, 0])
    if not values:
        return "–"
    found = difference(float(np.mean(values)), np.mean(samples, axis=0))
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def weighted_ap(run: Run, work: Path) -> "WeightedAP":
    """A run's predictions, ready to be scored on resamples."""
    from yolo_cli.commands.compare import read_with_ground_truth
    from yolo_cli.dataset.splits import load_split, prepare_dataset
    from yolo_cli.evaluation.weighted_ap import WeightedAP
    from yolo_cli.progress import Silent

    spec = prepare_dataset(run.data, Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=0, reporter=Silent())
    return WeightedAP(read_with_ground_truth(work / "val" / run.key / "predictions.json", split, spec.nc), spec.nc)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and results; kept")
    parser.add_argument("--data", nargs="+", required=True, help="data.yaml files or names")
    parser.add_argument("--starts", nargs="+", required=True, help="weight files or names, or scratch:ARCHITECTURE")
    parser.add_argument("--recipes", nargs="+", default=["auto"], help=f"of {', '.join(RECIPES)}, or a peer")
    parser.add_argument("--epochs", nargs="+", type=int, default=[10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments, made by peers.sh")
    args = parser.parse_args()
    wanted = [recipe for recipe in args.recipes if recipe in PEERS]
    peers = peer_pythons(args.peers, wanted) if wanted else {}
    args.recipes = [r for r in args.recipes if r in RECIPES or r in peers]
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    runs = grid(args)
    done = perform(runs, args.work, peers)
    lines = report(runs, done, args.work)
    (args.work / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
