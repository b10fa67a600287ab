"""All checks of a dataset, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

from yolo_cli.data_checks.boxes import check_boxes
from yolo_cli.data_checks.classes import check_classes
from yolo_cli.data_checks.duplicates import check_duplicates
from yolo_cli.data_checks.files import check_orphans, check_problems
from yolo_cli.data_checks.findings import ERROR, EXPLANATIONS, SEVERITIES, WARNING, CheckedSplit, Finding
from yolo_cli.data_checks.image_quality import check_image_quality


@dataclass(frozen=True)
class CheckResult:
    """The findings, errors first."""

    findings: tuple[Finding, ...]

    @staticmethod
    def of(findings: Sequence[Finding]) -> "CheckResult":
        """Findings in the order of their severity, then of EXPLANATIONS."""
        order = {code: i for i, code in enumerate(EXPLANATIONS)}
        return CheckResult(tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), order[f.code]))))

    def number(self, severity: str) -> int:
        """The number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def status(self, *, strict: bool) -> int:
        """Exit status: 2 with errors, 1 with warnings if `strict`, else 0."""
        return 2 if self.number(ERROR) else int(strict and self.number(WARNING) > 0)


def check_dataset(splits: Sequence[CheckedSplit], names: tuple[str, ...], img: tuple[int, int]) -> list[Finding]:
    """What is wrong with the splits of a dataset; `img` is the (height, width) of training."""
    findings: list[Finding] = []
    for split in splits:
        findings += check_problems(split) + check_boxes(split, names, img) + check_image_quality(split)
    return findings + check_orphans(splits) + check_classes(splits, names) + check_duplicates(splits)
