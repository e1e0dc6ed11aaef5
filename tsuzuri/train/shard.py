"""One model over several processes: PyTorch's FSDP2, started by torchrun. gloo on CPUs, nccl on accelerators.

In: a model whole on every rank. Out: the same model with each parameter sharded. Nothing distributed is home-made.
"""

from __future__ import annotations

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from tsuzuri import device
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.transformer import Transformer


def join() -> None:
    """Become one of the processes torchrun started; once is enough."""
    if not distributed.is_initialized():
        rank, world = device.rank()
        backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, rank=rank, world_size=world)


def shard(model: Transformer | EncoderDecoder) -> None:
    """Shard every block and then the rest. The loss reads `hidden` and `head_weight`, so both count as forward."""
    join()
    mesh = init_device_mesh(next(model.parameters()).device.type, (distributed.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for method in ("hidden", "encode"):
        if hasattr(model, method):
            register_fsdp_forward_method(model, method)
