"""The rank of this process, and the number of ranks that train together."""

import torch.distributed as dist


def world_size() -> int:
    """Return the number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_rank() -> int:
    """Return the rank of this process; 0 if it trains alone."""
    return dist.get_rank() if world_size() > 1 else 0
