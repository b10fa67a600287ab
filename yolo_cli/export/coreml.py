"""CoreML: Apple's format. Written anywhere, run on macOS alone, so that it cannot be proven here."""

from pathlib import Path

from yolo_cli.export.program import IMAGES, ROWS
from yolo_cli.export.pt2 import capture
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request, require

EXTRA = "coreml"


def write(request: Request, path: Path) -> None:
    """Convert the captured program to an ML program. Raises UserError where the package is missing."""
    with quiet(native=True):
        tools = require("coremltools", EXTRA)
        program = capture(request).run_decompositions({})
        shape = tuple(request.example().shape)
        precision = tools.precision.FLOAT16 if request.metadata.half else tools.precision.FLOAT32
        model = tools.convert(
            program,
            inputs=[tools.TensorType(name=IMAGES, shape=shape)],
            outputs=[tools.TensorType(name=ROWS)],
            convert_to="mlprogram",
            compute_precision=precision,
        )
        model.user_defined_metadata.update(request.metadata.to_text())
        model.save(str(path))
