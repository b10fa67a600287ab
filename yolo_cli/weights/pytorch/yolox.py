"""Published YOLOX weights (Apache-2.0): a state dict in the published naming, read into our architectures.

The published network takes BGR in 0 … 255. Reading folds that into its first convolution, so that ours takes RGB in
0 … 1 like every other model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.model.build import DetectionModel

# The published name of each row of models/yolox-*.yaml; "" for rows without weights.
ROWS = (
    "backbone.backbone.stem",
    "backbone.backbone.dark2.0",
    "backbone.backbone.dark2.1",
    "backbone.backbone.dark3.0",
    "backbone.backbone.dark3.1",
    "backbone.backbone.dark4.0",
    "backbone.backbone.dark4.1",
    "backbone.backbone.dark5.0",
    "backbone.backbone.dark5.1",
    "backbone.backbone.dark5.2",
    "backbone.lateral_conv0",
    "",
    "",
    "backbone.C3_p4",
    "backbone.reduce_conv1",
    "",
    "",
    "backbone.C3_p3",
    "backbone.bu_conv2",
    "",
    "backbone.C3_n3",
    "backbone.bu_conv1",
    "",
    "backbone.C3_n4",
    "head",
)
# Parts of a block, published → ours.
PARTS = {"conv1": "cv1", "conv2": "cv2", "conv3": "cv3", "dconv": "depthwise", "pconv": "pointwise"}

# Of a folded norm's scale: more than FP16 files lose, less than a norm without training differs by (√(1 + ε) − 1).
FOLDED_TOLERANCE = 1e-4

STEM = "model.0.conv.conv.weight"  # its 12 input channels are four pixels of three colors


def published_state(content: Any) -> Mapping[str, Tensor] | None:
    """The state dict in the published naming that a file's content is, or has under `model`; None without one."""
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    if state and all(str(name).startswith("module.") for name in state):  # saved from DataParallel
        state = {str(name).removeprefix("module."): value for name, value in state.items()}
    kernels = [state.get(name) for name in (f"{ROWS[0]}.conv.conv.weight", "head.cls_preds.0.weight")]
    return state if all(kernel is not None and kernel.ndim == 4 for kernel in kernels) else None


def our_name(name: str) -> str:
    """A published state-dict name in ours; "" for one that has no place in these models."""
    for row, prefix in enumerate(ROWS):
        if prefix and name.startswith(f"{prefix}."):
            parts = name.removeprefix(f"{prefix}.").split(".")
            return ".".join(["model", str(row), *(PARTS.get(part, part) for part in parts)])
    return ""


def read_state(state: Mapping[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    """The architecture that a published state dict belongs to, and the state in our naming, for RGB in 0 … 1.

    Raises UserError for a network that is none of the shipped sizes.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        if not (renamed := our_name(name)):
            raise UserError(f"{name} is no part of a YOLOX network")
        ours[renamed] = value.detach().float() if value.is_floating_point() else value
    architecture = _architecture(ours)
    ours[STEM] = fold_bgr(ours[STEM])
    return architecture, ours


def has_folded_norms(state: Mapping[str, Tensor]) -> bool:
    """Whether every batch norm only adds a bias, because the rest was folded into its convolution."""
    for name, mean in state.items():
        if name.endswith(".running_mean"):
            norm = name.removesuffix("running_mean")
            deviation = (state[f"{norm}running_var"] + BN_EPS).sqrt()
            if mean.any() or not torch.allclose(state[f"{norm}weight"], deviation, rtol=FOLDED_TOLERANCE):
                return False
    return True


def fold_bgr(weight: Tensor) -> Tensor:
    """The stem's kernel for RGB in 0 … 1 from that for BGR in 0 … 255; (out, 4 · 3, k, k)."""
    out, channels, *kernel = weight.shape
    colors = weight.view(out, channels // 3, 3, *kernel)
    return colors.flip(2).reshape(weight.shape) * 255


def _architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The shipped architecture whose kernels have the names and shapes of a state, with its number of classes."""
    classes = state["model.24.cls_preds.0.weight"].shape[0]
    kernels = {name: value.shape for name, value in state.items() if value.ndim == 4}
    for name in assets.names("models"):
        architecture = find_architecture(name)
        if architecture.layers[-1].block != "DecoupledDetect" or len(architecture.layers) != len(ROWS):
            continue
        architecture = architecture.with_classes(classes)
        with torch.device("meta"):  # shapes alone: nothing is allocated
            own = DetectionModel(architecture).state_dict()
        if {name: value.shape for name, value in own.items() if value.ndim == 4} == kernels:
            return architecture
    raise UserError(
        "not a YOLOX of a published size (nano, tiny, s, m, l, x)", fix="describe the network in a YAML file"
    )
