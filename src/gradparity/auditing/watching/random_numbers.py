"""The state of the random numbers, as a digest: of the CPU's generator and of each GPU's. Nothing is drawn."""

import torch
import xxhash


def random_digest() -> str:
    """Return a digest of all states of torch's own generators; empty where they cannot be read."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return ""  # inside torch.func a state has no content to read
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # a GPU's state is a seed and an offset, kept on the host
        states += [generator.get_state() for generator in torch.cuda.default_generators]
    digest = xxhash.xxh3_128()
    for state in states:
        digest.update(state.numpy().data)
    return digest.hexdigest()
