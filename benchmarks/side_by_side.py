"""Shared by the benchmarks: runs in turn, medians, ratios within a round, a table and a JSON file.

Imports only the standard library at module level, because the peers' interpreters run these files too.
"""

import argparse
import itertools
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OURS = "yolo_cli"
PEERS = ("yolov5", "ultralytics")
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """One figure of a measurement: its name in the results, its unit, its direction, and the goal."""

    name: str
    unit: str
    higher_is_better: bool
    aim: str = ""


# ---------------------------------------------------------------- options


def options(description: str, runs: int) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments, created by peers.sh")
    parser.add_argument("--runs", type=int, default=runs, help="number of rounds; each round runs every program once")
    parser.add_argument("--json", type=Path, help="output file; default: results/NAME.json beside the script")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # this process is one side of the measurement
    parser.add_argument("--task", default="{}", help=argparse.SUPPRESS)  # its settings, as JSON
    return parser


def add_data_options(parser: argparse.ArgumentParser, *, weights: bool = False) -> None:
    """Options for the dataset and the weights. Both default to the files in YOLO_REFERENCE_DIR."""
    reference = os.environ.get("YOLO_REFERENCE_DIR")
    data = str(Path(reference) / "datasets" / "coco128" / "data.yaml") if reference else "coco128"
    parser.add_argument("--data", default=data, help="data.yaml or a built-in name")
    if weights:
        file = str(Path(reference) / "weights" / "yolov5n.pt") if reference else None
        parser.add_argument("--weights", default=file, required=file is None, help="published yolov5n.pt")


def peer_pythons(peers: Path | None, wanted: Sequence[str]) -> dict[str, Path]:
    """The interpreters of the installed peers. Prints which ones are missing."""
    found = {}
    for name in wanted:
        python = None if peers is None else peers.absolute() / name / "bin" / "python"
        if python is not None and python.exists():
            found[name] = python
        else:
            print(f"{name} is left out: " + ("no --peers" if peers is None else f"{python} is missing"))
    return found


# ---------------------------------------------------------------- environment


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder for data, caches and runs."""
    with tempfile.TemporaryDirectory(prefix="yolo_cli_benchmark_") as name:
        yield Path(name)


def environment(
    folder: Path, python: Path | None = None, *, threads: int | None = None, pinned: bool = False
) -> dict[str, str]:
    """Environment of a measured process: its own home and caches, offline. `python` is the peer's interpreter.

    Bytecode is written, as it is for a user, because importing torch takes twice as long without.

    With `pinned`, every thread has its own core. Otherwise waiting threads soon sleep: on some machines two OpenMP
    threads share one core for seconds, and a step takes ten times as long if they spin.
    """
    home = folder / "home"
    (home / ".config" / "Ultralytics").mkdir(parents=True, exist_ok=True)
    own = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "YOLO_CACHE_DIR": str(folder / "yolo_cli_cache"),
        "MPLBACKEND": "Agg",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    if python is not None:
        # yolov5 7.0.14 loads the weights as a pickle. torch ≥ 2.6 allows that only with this variable.
        own |= {"YOLO_OFFLINE": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "WANDB_MODE": "disabled"}
        font = home / ".config" / "Ultralytics" / "Arial.ttf"
        fonts = sorted(
            python.parent.parent.glob("lib/python*/site-packages/matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")
        )
        if fonts and not font.exists():
            shutil.copy(fonts[0], font)  # otherwise it is downloaded
    own |= {"OMP_PROC_BIND": "true"} if pinned else {"GOMP_SPINCOUNT": "10000"}
    if threads is not None:
        own |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return os.environ | own


def copy_dataset(data: str, folder: Path, splits: Sequence[str] = ("train", "val"), at_least: int = 0) -> Path:
    """Copy a dataset into YOLO folders, because peers write caches beside the labels; returns its data.yaml.

    Each image is copied under several names, if there are not `at_least` so many of a split otherwise.
    """
    from yolo_cli.dataset.label_index import label_path
    from yolo_cli.dataset.spec import split_files
    from yolo_cli.dataset.splits import prepare_dataset
    from yolo_cli.errors import UserError
    from yolo_cli.progress import Silent

    try:
        spec = prepare_dataset(data, Silent())
    except UserError as error:
        sys.exit(f"error: {error}")
    for split in splits:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        files = list(map(Path, split_files(spec, split)))
        for copy, image in itertools.product(range(max(math.ceil(at_least / len(files)), 1)), files):
            prefix = f"{copy}_" if copy else ""
            shutil.copyfile(image, images / f"{prefix}{image.name}")
            label = Path(label_path(str(image)))
            if label.exists():
                shutil.copyfile(label, labels / f"{prefix}{label.name}")
    lines = [f"path: {folder}", *(f"{split}: images/{split}" for split in splits), f"nc: {spec.nc}", "names:"]
    lines += [f"  {i}: {json.dumps(name)}" for i, name in enumerate(spec.names)]
    file = folder / "data.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


# ---------------------------------------------------------------- runs


def ask(
    python: Path | str, script: str, worker: str, task: Mapping[str, Any], env: Mapping[str, str], cwd: Path
) -> Any:
    """Run one side of a benchmark in a new process; returns the JSON in the last line of its output."""
    command = [str(python), script, "--worker", worker, "--task", json.dumps(task)]
    return json.loads(_output(command, env, cwd).strip().splitlines()[-1])


def answer(value: Any) -> None:
    """Print a worker's result for `ask`."""
    print("\n" + json.dumps(value), flush=True)


def seconds(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> float:
    """Wall time of a whole command."""
    start = time.perf_counter()
    _output(command, env, cwd)
    return time.perf_counter() - start


def _output(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        # The last line has the error. The lines above it quote source code.
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} … ended with {done.returncode}: {last[:300]}")
    return done.stdout


def alternate(sides: Mapping[str, Callable[[], Figures]], runs: int) -> list[dict[str, Figures]]:
    """Run every side once per round (A B A B …), so that a slow phase of the machine affects all of them."""
    rounds = []
    for number in range(runs):
        results: dict[str, Figures] = {}
        for name, run in sides.items():
            try:
                results[name] = run()
            except RuntimeError as error:
                if name == OURS:
                    raise
                print(f"{name} failed: {error}", file=sys.stderr)
                continue
            print(f"  round {number + 1} {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[name].items()))
        rounds.append(results)
    return rounds


def peak_megabytes() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1024


# ---------------------------------------------------------------- results


def report(
    name: str,
    measures: Sequence[Measure],
    rounds: Sequence[Mapping[str, Figures]],
    *,
    json_file: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    peers: Mapping[str, Path] | None = None,
    base: str = OURS,
) -> None:
    """Print a table of medians and median ratios of `base` to the others in a round; write all figures as JSON."""
    rows = [_summary(measure, rounds, base) for measure in measures]
    _print_table(name, rows, base)
    result = {
        "benchmark": name,
        "machine": _machine(),
        "versions": {OURS: _versions(Path(sys.executable))}
        | {peer: _versions(python) for peer, python in (peers or {}).items()},
        "settings": dict(settings or {}),
        "summary": rows,
        "rounds": [{side: dict(figures) for side, figures in one.items()} for one in rounds],
    }
    file = json_file or HERE / "results" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"figures in {file}")


def _summary(measure: Measure, rounds: Sequence[Mapping[str, Figures]], base: str) -> dict[str, Any]:
    """The median of each side, and for each other side the median over the rounds of base's advantage as a factor."""
    sides = dict.fromkeys(side for one in rounds for side in one)
    values = {side: [one[side][measure.name] for one in rounds if measure.name in one.get(side, {})] for side in sides}
    times_better = {}
    for side in sides:
        pairs = [
            (one[base][measure.name], one[side][measure.name])
            for one in rounds
            if side != base and measure.name in one.get(base, {}) and measure.name in one.get(side, {})
        ]
        ratios = [mine / theirs if measure.higher_is_better else theirs / mine for mine, theirs in pairs]
        if ratios:
            times_better[side] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {
        "measure": measure.name,
        "unit": measure.unit,
        "higher_is_better": measure.higher_is_better,
        "aim": measure.aim,
        "median": {side: statistics.median(of) for side, of in values.items() if of},
        "times_better": times_better,
    }


def _print_table(name: str, rows: Sequence[Mapping[str, Any]], base: str) -> None:
    sides = list(dict.fromkeys(side for row in rows for side in row["median"]))
    sides.sort(key=lambda side: side != base)
    peers = sides[1:]
    lines = [[name, "unit", *sides, *(f"× better than {peer}" for peer in peers), "aim"]]
    for row in rows:
        medians = [f"{row['median'][side]:.4g}" if side in row["median"] else "–" for side in sides]
        ratios = [_ratio(row["times_better"].get(peer)) for peer in peers]
        lines.append([row["measure"], row["unit"], *medians, *ratios, row["aim"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * width for width in widths]
    for line in (lines[0], rule, *lines[1:]):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _ratio(ratio: Mapping[str, float] | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def _machine() -> dict[str, Any]:
    import torch

    from yolo_cli.run.provenance import machine

    load = {"load_average": [round(v, 2) for v in os.getloadavg()]} if hasattr(os, "getloadavg") else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    return machine(device) | {"memory_gib": round(memory, 1), "at": time.strftime("%Y-%m-%d %H:%M")} | load


def _versions(python: Path) -> dict[str, str]:
    names = ["yolo-cli", "yolov5", "ultralytics", "torch", "torchvision", "numpy", "opencv-python"]
    names += ["opencv-python-headless", "pillow", "simplejpeg", "hotcoco", "pycocotools", "faster-coco-eval"]
    code = (
        "import json, platform, sys; from importlib import metadata as m\n"
        "found = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    return dict(json.loads(subprocess.run([python, "-c", code, *names], capture_output=True, check=True).stdout))
