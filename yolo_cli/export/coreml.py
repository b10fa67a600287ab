"""CoreML: Apple's format. It can be written anywhere, but runs only on macOS, so it is not verified here."""

from pathlib import Path

from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.pt2 import capture
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.wrappers import IMAGES, ROWS


def write(spec: ExportSpec, path: Path) -> None:
    """Convert the captured program to an ML program."""
    with silence(native=True):
        coremltools = import_optional("coremltools", "coreml")
        program = capture(spec).run_decompositions({})
        precision = coremltools.precision.FLOAT16 if spec.metadata.half else coremltools.precision.FLOAT32
        model = coremltools.convert(
            program,
            inputs=[coremltools.TensorType(name=IMAGES, shape=tuple(spec.example().shape))],
            outputs=[coremltools.TensorType(name=ROWS)],
            convert_to="mlprogram",
            compute_precision=precision,
        )
        model.user_defined_metadata.update(spec.metadata.to_text())
        model.save(str(path))
