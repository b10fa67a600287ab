"""Wall time of printing the help of each command line: a new process each time, files in the page cache."""

import sys
from pathlib import Path

from side_by_side import OURS, Measure, alternate, environment, options, peer_pythons, report, seconds, workplace

MEASURES = (Measure("help", "s", False, "0.25 s"),)


def main() -> None:
    args = options(__doc__, runs=3).parse_args()
    peers = peer_pythons(args.peers, ("ultralytics", "yolov5"))
    commands = {OURS: [str(Path(sys.executable).with_name("yolo")), "--help"]}
    if "ultralytics" in peers:
        commands["ultralytics"] = [str(peers["ultralytics"].with_name("yolo")), "help"]
    if "yolov5" in peers:
        commands["yolov5"] = [str(peers["yolov5"].with_name("yolov5")), "--help"]
    with workplace() as folder:
        env = {name: environment(folder, peers.get(name)) for name in commands}
        for name, command in commands.items():
            seconds(command, env[name], folder)  # writes settings files and bytecode
        sides = {
            name: lambda name=name, command=command: {"help": seconds(command, env[name], folder)}
            for name, command in commands.items()
        }
        rounds = alternate(sides, args.runs)
    settings = {"commands": {name: [Path(c[0]).name, *c[1:]] for name, c in commands.items()}, "runs": args.runs}
    report("cli_help", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
