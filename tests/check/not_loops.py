"""Functions and objects that cannot be called as a training loop, and loops that do not repeat themselves."""

import functools
import types

from loops_that_train_nothing import yields_asynchronously

a_module = types
a_generator_in_part = functools.partial(yields_asynchronously)


def wants_more(model, optimizer, batches, learning_rate, *, device):
    pass


def takes_only_places(model, optimizer, /, batches):
    pass


calls = [0]


def counts_its_calls(model, optimizer, batches, loss):
    calls[0] += 1
    (loss(model, batches[0]) * calls[0]).backward()
    optimizer.step()


def asks_for_a_device(model, optimizer, batches, device):
    pass


def takes_no_model(optimizer, batches):
    pass


async def awaits(model, optimizer, batches, loss):
    pass


no_function = 3


def takes_seven_with_a_device(model, optimizer, batches, loss, scheduler, plan, device):
    """As many as there are, and most of them by name."""
