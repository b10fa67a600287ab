"""Run by the launcher: SyncBatchNorm and DistributedDataParallel over NCCL in one process, against the plain model."""

import copy
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel


def main() -> None:
    """Compare gradients of one batch."""
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    torch.manual_seed(0)
    plain = DetectionModel(find_architecture("n")).cuda().train()
    network = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)), device_ids=[0])
    images = torch.rand(4, 3, 64, 64, device="cuda")
    for model in (plain, network):
        sum(y.square().mean() for y in model(images)).backward()
    for one, two in zip(plain.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-2, atol=1e-4)
    dist.destroy_process_group()
    print("gradients equal")


if __name__ == "__main__":
    main()
