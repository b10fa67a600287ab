"""The network as one module from pixels to boxes, which is what every format stores."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.greedy_nms import load_operator
from yolo_cli.config.thresholds import lowest
from yolo_cli.export.metadata import NMSSettings
from yolo_cli.model.build import DetectionModel

IMAGES, ROWS, DETECTIONS = "images", "rows", "detections"  # names of the input, and of the output without or with NMS


class WithDecoding(nn.Module):
    """(b, 3, h, w) RGB in 0 … 1 → predictions (b, n, 5 + classes): cx, cy, w, h in pixels, objectness, probabilities.

    With `half` the network runs in half precision. Boxes are decoded in single precision in any case, because half
    precision cannot represent all integers beyond 2,048.
    """

    def __init__(self, model: DetectionModel, *, half: bool = False) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.half_precision = half

    def forward(self, images: Tensor) -> Tensor:
        raw = self.model(images.half() if self.half_precision else images)
        return self.model.decode(raw)


class WithNMS(nn.Module):
    """A network with class-aware NMS behind it, for the formats that store torch's own operators."""

    def __init__(self, network: WithDecoding, settings: NMSSettings) -> None:
        super().__init__()
        load_operator()
        self.network, self.settings = network, settings
        self.register_buffer("class_conf", torch.tensor(settings.conf) if isinstance(settings.conf, tuple) else None)
        self.class_conf: Tensor | None

    def forward(self, images: Tensor) -> Tensor:
        return batched_nms(self.network(images), self.settings, self.class_conf)


def batched_nms(
    predictions: Float[Tensor, "b n o"], settings: NMSSettings, class_conf: Float[Tensor, " classes"] | None = None
) -> Float[Tensor, "k 7"]:
    """Detections (image, x1, y1, x2, y2, confidence, class), most confident first, at most `max_det` per image.

    Each box counts only for its most probable class, as in `yolo detect`. One call of the operator serves all images
    and classes, whose boxes are shifted apart for it. No branch depends on values, so the function can be traced.
    `class_conf` has the thresholds of `settings` if they are per class.
    """
    confidence, class_id = (predictions[..., 5:] * predictions[..., 4:5]).max(2)
    limit = lowest(settings.conf) if class_conf is None else class_conf[class_id]
    image, row = (confidence > limit).nonzero(as_tuple=True)
    box, score, label = predictions[image, row, :4], confidence[image, row], class_id[image, row]
    xyxy = cxcywh_to_xyxy(box)
    # The appended zero makes the maximum of no boxes defined.
    span = torch.cat((xyxy.double().abs().flatten(), xyxy.new_zeros(1).double())).max() * 2 + 1
    group = (image * predictions.shape[2] + label).double()
    kept = torch.ops.torchvision.nms(xyxy.double() + (group * span)[:, None], score.double(), settings.iou)
    owner = image[kept]
    rank = (owner[:, None] == torch.arange(predictions.shape[0], device=predictions.device)).cumsum(0)
    kept = kept[rank.gather(1, owner[:, None]).squeeze(1) <= settings.max_det]
    columns = (image[kept, None].float(), xyxy[kept], score[kept, None], label[kept, None].float())
    return torch.cat(columns, 1)
