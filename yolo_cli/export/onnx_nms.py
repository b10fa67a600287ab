"""Class-aware non-maximum suppression as ONNX nodes."""

from typing import Any

import numpy as np

from yolo_cli.config.thresholds import lowest
from yolo_cli.export.metadata import NMSSettings
from yolo_cli.export.wrappers import DETECTIONS, ROWS

# Each line: outputs, operator, inputs, attributes. `_constants` defines the names of constants.
_NODES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("center", "Slice", f"{ROWS} i0 i2 axis2", {}),
    ("size", "Slice", f"{ROWS} i2 i4 axis2", {}),
    ("objectness", "Slice", f"{ROWS} i4 i5 axis2", {}),
    ("classes", "Slice", f"{ROWS} i5 end axis2", {}),
    ("half_size", "Mul", "size half", {}),
    ("low", "Sub", "center half_size", {}),
    ("high", "Add", "center half_size", {}),
    ("xyxy", "Concat", "low high", {"axis": 2}),
    ("probabilities", "Mul", "classes objectness", {}),
    # Each box counts only for its most probable class, as in `yolo detect`.
    ("best", "ArgMax", "probabilities", {"axis": 2, "keepdims": 0}),
    ("one_hot", "OneHot", "best class_count off_on", {"axis": -1}),
    ("best_only", "Mul", "probabilities one_hot", {}),
    ("scores", "Transpose", "best_only", {"perm": [0, 2, 1]}),
    ("selected", "NonMaxSuppression", "xyxy scores max_det iou conf", {}),  # rows: image, class, box
    ("image", "Slice", "selected i0 i1 axis1", {}),
    ("label", "Slice", "selected i1 i2 axis1", {}),
    ("box", "Slice", "selected i2 i3 axis1", {}),
    ("image_box", "Concat", "image box", {"axis": 1}),
    ("image_box_label", "Concat", "image box label", {"axis": 1}),
    ("corners", "GatherND", "xyxy image_box", {}),
    ("confidence", "GatherND", "probabilities image_box_label", {}),
    ("found", "Shape", "confidence", {}),
    ("sorted order", "TopK", "confidence found", {"axis": 0}),
    ("image_float", "Cast", "image", {"to": 1}),
    ("label_float", "Cast", "label", {"to": 1}),
    ("confidence_column", "Unsqueeze", "confidence axis1", {}),
    ("unsorted", "Concat", "image_float corners confidence_column label_float", {"axis": 1}),
    ("ordered", "Gather", "unsorted order", {"axis": 0}),
    # The rank of each detection within its image; `max_det` of them are kept.
    ("owner", "Gather", "image order", {"axis": 0}),
    ("shape", "Shape", ROWS, {}),
    ("batch", "Gather", "shape zero", {"axis": 0}),
    ("images_numbered", "Range", "zero batch one", {}),
    ("mine", "Equal", "owner images_numbered", {}),
    ("mine_counted", "Cast", "mine", {"to": 7}),
    ("ranks", "CumSum", "mine_counted zero", {}),
    ("rank", "GatherElements", "ranks owner", {"axis": 1}),
    ("within", "LessOrEqual", "rank max_det", {}),
    ("within_flat", "Reshape", "within minus_one", {}),
    (DETECTIONS, "Compress", "ordered within_flat", {"axis": 0}),
)
# With a threshold per class, scores up to the threshold of their class become 0, which no detection has.
_CLASS_THRESHOLDS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("is_above", "Greater", "best_only class_conf", {}),
    ("above", "Cast", "is_above", {"to": 1}),
    ("best_above", "Mul", "best_only above", {}),
    ("scores", "Transpose", "best_above", {"perm": [0, 2, 1]}),
)
_TRANSPOSE = next(i for i, (outputs, *_) in enumerate(_NODES) if outputs == "scores")
_PER_CLASS_NODES = (*_NODES[:_TRANSPOSE], *_CLASS_THRESHOLDS, *_NODES[_TRANSPOSE + 1 :])


def append_nms(onnx: Any, proto: Any, settings: NMSSettings, classes: int) -> None:
    """Append NMS to a graph whose output is `rows` (b, n, 5 + classes), in place.

    The new output is `detections` (k, 7): image, x1, y1, x2, y2, confidence, class; most confident first.
    """
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = proto.graph
    for name, value in _constants(settings, classes).items():
        graph.initializer.append(numpy_helper.from_array(value, f"nms_{name}"))
    nodes = _PER_CLASS_NODES if isinstance(settings.conf, tuple) else _NODES
    own = set(_constants(settings, classes)) | {word for outputs, *_ in nodes for word in outputs.split()}

    def prefixed(names: str) -> list[str]:
        return [f"nms_{name}" if name in own and name != DETECTIONS else name for name in names.split()]

    for outputs, operator, inputs, attributes in nodes:
        name = f"nms_{outputs.split()[0]}"
        graph.node.append(helper.make_node(operator, prefixed(inputs), prefixed(outputs), name, **attributes))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, onnx.TensorProto.FLOAT, ["found", 7]))


def _constants(settings: NMSSettings, classes: int) -> dict[str, Any]:
    whole = {f"i{i}": [i] for i in range(6)} | {"end": [5 + classes], "axis1": [1], "axis2": [2], "minus_one": [-1]}
    scalars = {"zero": 0, "one": 1, "class_count": classes}
    constants = {name: np.array(value, np.int64) for name, value in (whole | scalars).items()}
    constants["max_det"] = np.array([settings.max_det], np.int64)
    constants["iou"] = np.array([settings.iou], np.float32)
    constants["conf"] = np.array([lowest(settings.conf)], np.float32)
    if isinstance(settings.conf, tuple):
        constants["class_conf"] = np.array(settings.conf, np.float32)
    constants["half"] = np.array(0.5, np.float32)
    constants["off_on"] = np.array([0, 1], np.float32)
    return constants
