"""Fuzz every reader of untrusted files: `python benchmarks/fuzz.py --minutes 3`.

If atheris is installed (`pip install atheris`, Linux and macOS), the search is guided by coverage. Otherwise inputs are
mutated at random. Each input is limited to `--seconds` of processor time and to its target's memory. Inputs run in a
child process, so that a crash of native code is found as well. Each finding is saved in `--crashes`, with a traceback.
"""

import argparse
import importlib.util
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fuzz")]
NAMES = (
    "labels", "data-yaml", "architecture-yaml", "hyp-yaml", "darknet-cfg", "darknet-weights", "pickle", "archives",
    "images",
)  # fmt: skip
LAST = struct.Struct("<qqI")  # inputs so far, longest time in µs, bytes of the input being run
MAX_INPUT = 2**18
MEMORY_DISK = Path("/dev/shm")


def main() -> None:
    options = parsed()
    if options.child:
        child(options)
        return
    names = options.target or NAMES
    rows = []
    for name in names:
        rows.append(fuzz(name, options))
        print(table(rows[-1:]) if len(rows) == 1 else table(rows[-1:]).splitlines()[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES, help="reader to fuzz (repeatable); default: all")
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes per target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="maximum processor time per input")
    parser.add_argument("--corpus", type=Path, help="folder with more inputs to start from, in one folder per target")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"), help="folder for findings")
    parser.add_argument("--no-atheris", action="store_true", help="mutate at random even if atheris is installed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def fuzz(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fuzz one target for its time. If the child process dies, that is a finding, and a new one is started."""
    guided = importlib.util.find_spec("atheris") is not None and not options.no_atheris
    crashes = options.crashes / name
    crashes.mkdir(parents=True, exist_ok=True)
    inputs, longest, restarts, began = 0, 0.0, 0, time.monotonic()
    while (left := options.minutes * 60 - (time.monotonic() - began)) > 1:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as work:
            status = Path(work, "status")
            status.write_bytes(bytes(LAST.size + MAX_INPUT))
            command = [sys.executable, __file__, "--child", "--target", name, "--work", work]
            command += ["--minutes", str(left / 60), "--seed", str(options.seed + restarts)]
            command += ["--seconds", str(options.seconds), "--crashes", str(options.crashes)]
            command += ["--corpus", str(options.corpus)] if options.corpus else []
            command += ["--no-atheris"] if options.no_atheris else []
            ended = watched(command, status, left, options.seconds)
            state = status.read_bytes()
        done, slowest, size = LAST.unpack_from(state)
        inputs, longest, restarts = inputs + done, max(longest, slowest / 1e6), restarts + 1
        if ended not in ("", "exit 0"):
            keep(crashes, f"process ended: {ended}", state[LAST.size : LAST.size + size], ended)
    return {
        "target": name,
        "inputs": inputs,
        "seconds": round(time.monotonic() - began),
        "longest_s": round(longest, 2),
        "search": "atheris" if guided else "random",
        "findings": len(list(crashes.glob("*.txt"))),
    }


def watched(command: Sequence[str], status: Path, left: float, seconds: float) -> str:
    """Run a process and return how it ended. It is killed if one input blocks it in native code."""
    log = status.with_name("log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        before, since, end = (-1, b""), time.monotonic(), time.monotonic() + left + 60
        while process.poll() is None:
            time.sleep(0.2)
            with status.open("rb") as file:
                now = (LAST.unpack(file.read(LAST.size))[0], file.read(64))
            if now != before:
                before, since = now, time.monotonic()
            starting = now[0] == 0
            if time.monotonic() - since > seconds * 10 + 60 * starting or time.monotonic() > end:
                process.kill()
                process.wait()
                return "" if time.monotonic() > end else "no end, killed"
    if process.returncode < 0:
        return signal.Signals(-process.returncode).name
    if process.returncode:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
    return f"exit {process.returncode}"


def keep(folder: Path, key: str, data: bytes, text: str) -> None:
    """Save a finding. Of findings with the same `key`, the shortest input is kept."""
    name = f"{zlib.crc32(key.encode('utf-8', 'replace')):08x}"
    file = folder / name
    if file.exists() and file.stat().st_size <= len(data):
        return
    file.write_bytes(data)
    (folder / f"{name}.txt").write_text(f"{key}\n\n{text}", errors="backslashreplace")


# The child process, which runs the inputs.


def child(options: argparse.Namespace) -> None:
    os.environ["YOLO_CACHE_DIR"] = str(options.work / "cache")
    os.environ.pop("YOLO_DATASETS", None)
    os.environ["TMPDIR"] = str(options.work)
    guided = importlib.util.find_spec("atheris") is not None and not options.no_atheris
    if guided:
        import atheris

        # torch and cv2 are native code, which cannot be instrumented
        with atheris.instrument_imports(include=["yolo_cli", "yaml", "pickletools", "torch._weights_only_unpickler"]):
            import fuzz_targets
    else:
        import fuzz_targets
    import fuzz_limits
    import fuzz_mutation
    import fuzz_seeds

    (name,) = options.target
    seeds = [*fuzz_seeds.crafted(name), *fuzz_seeds.real(name)]
    if options.corpus:
        seeds += [path.read_bytes() for path in sorted((options.corpus / name).glob("*")) if path.is_file()]
    runner = Runner(fuzz_targets, fuzz_limits, name, options)
    os.chdir(runner.folder)
    for seed in seeds:
        runner(seed)
    search = follow_coverage if guided else mutate_at_random
    with fuzz_limits.limited_memory(fuzz_targets.TARGETS[name].memory):
        search(runner, seeds, fuzz_mutation.mutate, options)


def mutate_at_random(runner: "Runner", seeds: list[bytes], mutate: Callable[..., bytes], options: Any) -> None:
    random, end = Random(options.seed), time.monotonic() + options.minutes * 60
    pool = list(seeds)
    while time.monotonic() < end:
        data = mutate(runner.name, random.choice(pool), pool, random)
        if runner(data) and len(data) < 20_000 and random.random() < 0.2:  # valid inputs are mutated further
            pool.append(data)
            if len(pool) > 400:
                del pool[len(seeds) + random.randrange(len(pool) - len(seeds))]


def follow_coverage(runner: "Runner", seeds: list[bytes], mutate: Callable[..., bytes], options: Any) -> None:
    import atheris

    start = options.work / "corpus"
    start.mkdir()
    for number, seed in enumerate(seeds):
        (start / str(number)).write_bytes(seed)

    def change(data: bytes, size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, size))
        return mutate(runner.name, data, seeds, random)[:size]

    arguments = [
        sys.argv[0], str(start), f"-max_total_time={max(int(options.minutes * 60), 1)}", f"-seed={options.seed + 1}",
        "-rss_limit_mb=0", "-malloc_limit_mb=0", "-timeout=100000", f"-max_len={max(map(len, seeds)) + 4096}",
        "-len_control=0", "-print_final_stats=0", "-verbosity=0", "-reload=0",
    ]  # fmt: skip
    atheris.Setup(arguments, lambda data: void(runner(data)), custom_mutator=change)
    atheris.Fuzz()


def void(_: object) -> None:
    """Return None, as atheris requires."""


class Runner:
    """Runs the inputs of a target and saves findings."""

    def __init__(self, targets: Any, limits: Any, name: str, options: argparse.Namespace) -> None:
        self.name, self.targets, self.limits, self.target = name, targets, limits, targets.TARGETS[name]
        self.seconds, self.crashes = options.seconds, options.crashes.absolute() / name
        self.folder = Path(tempfile.mkdtemp(dir=options.work))
        self.inputs, self.longest = 0, 0
        with (options.work / "status").open("r+b") as file:
            self.status = mmap.mmap(file.fileno(), 0)

    def __call__(self, data: bytes) -> bool:
        """Returns True if the input was read without an error."""
        data = data[:MAX_INPUT]
        self.inputs += 1
        self.status[LAST.size : LAST.size + len(data)] = data
        self.status[: LAST.size] = LAST.pack(self.inputs, self.longest, len(data))
        began, said, before = time.process_time(), "", self.limits.address_space()
        try:
            with self.limits.limited_time(self.seconds):
                said = self.targets.outcome(self.target, data, self.folder)
        except self.limits.OutOfTime as error:
            self._found(error, data, "time")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._found(error, data, type(error).__name__)
        took = time.process_time() - began
        self.longest = max(self.longest, round(took * 1e6))
        grown = self.limits.address_space() - before
        if grown > self.target.memory * 1024:
            keep(self.crashes, "memory", data, f"{grown >> 10} MiB more address space; {said}")
        return said == "read"

    def _found(self, error: BaseException, data: bytes, kind: str) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "yolo_cli" in f.filename.replace(str(ROOT), "")] or frames
        # the function that raised, and our innermost function; for a timeout only the latter
        places = ours[-1:] if kind == "time" else [frames[-1], ours[-1]]
        key = " < ".join([kind, *dict.fromkeys(f"{Path(f.filename).name}:{f.name}" for f in places)])
        text = "".join(traceback.format_exception(error))
        keep(self.crashes, key, data, text[-20_000:])


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ("target", "search", "inputs", "seconds", "longest_s", "findings")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [
        "| " + " | ".join(f"{row[head]:,}" if head == "inputs" else str(row[head]) for head in heads) + " |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
