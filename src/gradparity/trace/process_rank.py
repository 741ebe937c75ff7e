"""Whether this process is one of several that train together, and which."""

import torch.distributed as dist


def ranks() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the ranks this is."""
    return dist.get_rank() if ranks() > 1 else 0
