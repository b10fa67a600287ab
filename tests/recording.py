"""A reporter whose lines a test can read."""

from yolo_cli.progress import Silent


class Recording(Silent):
    """Keeps every line of information and every warning, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    warn = info
