from pathlib import Path

import pytest
import torch

from tests.recording import Recording
from yolo_cli.errors import UserError
from yolo_cli.weights.load import load_model


@pytest.mark.parametrize("name", ["m_aoti.pt2", "m.engine"], ids=["AOTInductor", "TensorRT"])
def test_the_warning_about_native_code_comes_before_the_file_is_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()  # cannot be opened
    reporter = Recording()
    with pytest.raises(UserError):
        load_model(tmp_path / name, torch.device("cpu"), reporter)
    assert [line for line in reporter.lines if "compiled code" in line and "only files that you made" in line]
