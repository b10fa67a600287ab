from pathlib import Path

import pytest
import torch

from yolo_cli.errors import UserError
from yolo_cli.progress import Silent
from yolo_cli.weights import load


class Ears(Silent):
    """A Reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.mark.parametrize("name", ["m_aoti.pt2", "m.engine"], ids=["AOTInductor", "TensorRT"])
def test_native_code_is_announced_before_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).touch()
    ears, warned_by_then = Ears(), []

    def opened(path: Path, device: torch.device) -> None:
        warned_by_then.extend(ears.warned)
        raise UserError("enough seen", where=path)

    monkeypatch.setattr(open_model, "open_exported", opened)
    with pytest.raises(UserError, match="enough seen"):
        load.open_model(tmp_path / name, torch.device("cpu"), ears)
    assert [line for line in warned_by_then if "compiled code" in line and "only files that you made" in line]
