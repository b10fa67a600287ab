import json
from dataclasses import replace
from pathlib import Path

from yolo_cli.dataset.label_index import Problem
from yolo_cli.dataset.splits import Split, load_split, prepare_dataset
from yolo_cli.progress import Silent
from yolo_cli.run.reports import write_dataset_report


def test_dataset_report_lists_every_problem_and_any_file_name(tmp_path: Path) -> None:
    spec = prepare_dataset("shapes", Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=0, reporter=Silent())
    problems = (Problem("a.txt", 3, "not a number: x"), Problem("\udcff.jpg", 0, "cannot be read"))
    broken = Split("broken", replace(split.index, problems=problems), 7)
    write_dataset_report(tmp_path, (split, broken))
    written = json.loads((tmp_path / "dataset_report.json").read_text().replace("\\udcff", "\\\\udcff"))
    assert list(written) == ["val", "broken"]
    assert written["val"]["images"] == len(split.index)
    assert written["val"]["problems"] == []
    assert written["broken"]["problems"] == [
        {"file": "a.txt", "line": 3, "what": "not a number: x"},
        {"file": "\\udcff.jpg", "line": 0, "what": "cannot be read"},
    ]
