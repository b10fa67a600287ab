"""The network as one function of tensors, from pixels to boxes: what every format writes down."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.nms import load_operator
from yolo_cli.export.metadata import Suppression
from yolo_cli.model.build import DetectionModel

IMAGES, ROWS, DETECTIONS = "images", "rows", "detections"  # names of the input and of either output


class Program(nn.Module):
    """(b, 3, h, w) RGB in 0 … 1 → rows (b, n, 5 + classes): cx, cy, w, h in pixels, objectness, class probabilities.

    With `half` the network computes in half precision; boxes are decoded in single precision all the same, since half
    precision cannot tell neighbouring pixels apart beyond 1,024.
    """

    def __init__(self, model: DetectionModel, *, half: bool = False) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.half_precision = half

    def forward(self, images: Tensor) -> Tensor:
        """Decoded rows, in single precision."""
        raw = self.model(images.half() if self.half_precision else images)
        return self.model.decode(raw)


class WithNMS(nn.Module):
    """A program with class-aware non-maximum suppression behind it, for formats that hold torch's own operators."""

    def __init__(self, program: Program, suppression: Suppression) -> None:
        super().__init__()
        load_operator()
        self.program, self.suppression = program, suppression

    def forward(self, images: Tensor) -> Tensor:
        """Detections of all images, see `suppress`."""
        return suppress(self.program(images), self.suppression)


def suppress(rows: Float[Tensor, "b n o"], chosen: Suppression) -> Float[Tensor, "k 7"]:
    """Detections (image, x1, y1, x2, y2, confidence, class), most confident first, at most `max_det` an image.

    A box counts for its best class alone, as in `yolo detect`. One pass serves all images and classes, which are moved
    apart for it; there is no branch on values, so that it can be traced.
    """
    confidence, class_id = (rows[..., 5:] * rows[..., 4:5]).max(2)
    image, row = (confidence > chosen.conf).nonzero(as_tuple=True)
    box, score, label = rows[image, row, :4], confidence[image, row], class_id[image, row]
    xyxy = cxcywh_to_xyxy(box)
    span = torch.cat((xyxy.double().abs().flatten(), xyxy.new_zeros(1).double())).max() * 2 + 1  # of no boxes, too
    group = (image * rows.shape[2] + label).double()
    kept = torch.ops.torchvision.nms(xyxy.double() + (group * span)[:, None], score.double(), chosen.iou)
    owner = image[kept]
    rank = (owner[:, None] == torch.arange(rows.shape[0], device=rows.device)).cumsum(0)
    kept = kept[rank.gather(1, owner[:, None]).squeeze(1) <= chosen.max_det]
    columns = (image[kept, None].float(), xyxy[kept], score[kept, None], label[kept, None].float())
    return torch.cat(columns, 1)
