"""Bad loops that do not train what they were given, or compute no numbers."""

import copy
import functools

import torch
from torch import nn

from loops import example as right

# Loops that do not train, or not what they were given.


def does_nothing(model, optimizer, batches):
    pass


def returns_false(model, optimizer, batches):
    return False


def only_forwards(model, optimizer, batches, loss):
    for batch in batches:
        loss(model, batch)


def never_steps(model, optimizer, batches, loss):
    for batch in batches:
        loss(model, batch).backward()


def makes_a_coroutine(model, batches):
    async def train():
        pass

    return train()


async def yields_asynchronously(model, batches):
    yield 1


awaits_in_part = functools.partial(lambda model, batches, rate: makes_a_coroutine(model, batches), rate=0.1)


class Trainer:
    """A class; its constructor trains nothing."""

    def __init__(self, model, optimizer, batches, loss, scaler, scheduler, plan):
        self.given = (model, optimizer, batches, loss, scaler, scheduler, plan)

    def fit(self):
        right(*self.given)


def builds_its_own_optimizer(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, torch.optim.AdamW(model.parameters(), lr=0.02), batches, loss, scaler, scheduler, plan)


def trains_a_copy(model, optimizer, batches, loss, scaler, scheduler, plan):
    mine = copy.deepcopy(model)
    right(mine, torch.optim.AdamW(mine.parameters(), lr=0.02), batches, loss, scaler, scheduler, plan)


def trains_a_copy_with_the_optimizer(model, optimizer, batches, loss, scaler, scheduler, plan):
    """The copy gets the gradients, and the optimizer steps without any."""
    right(copy.deepcopy(model), optimizer, batches, loss, scaler, scheduler, plan)


def copies_the_optimizer_too(model, optimizer, batches, loss, scaler, scheduler, plan):
    model, optimizer, scheduler = copy.deepcopy((model, optimizer, scheduler))
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_the_groups(model, optimizer, batches, loss, scaler, scheduler, plan):
    optimizer.param_groups = torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1).param_groups
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.up = nn.Linear(model.up.in_features, model.up.out_features, bias=False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_a_layer_later(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches[:6], loss, scaler, scheduler, plan)
    replaces_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan)


def loads_by_assignment(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def adds_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan):
    """A new parameter that the optimizer does not hold."""
    model.scale = nn.Parameter(torch.ones(()))
    right(model, optimizer, batches, lambda *given: loss(*given) * model.scale, scaler, scheduler, plan)


def swaps_the_data(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right: the parameters keep their identity."""
    for p in model.parameters():
        p.data = p.data.clone()
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def changes_the_dtype(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.to(torch.float64)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_the_tensors_under_swap(model, optimizer, batches, loss, scaler, scheduler, plan):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def freezes_everything(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.requires_grad_(False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


# Loops that compute no numbers.


def loses_its_numbers(model, optimizer, batches, loss, scaler, scheduler, plan):
    """0 / 0 in the loss: each gradient is NaN, and a scaler skips each step."""
    right(model, optimizer, batches, lambda *given: loss(*given) * float("nan"), scaler, scheduler, plan)


def overflows_always(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, lambda *given: loss(*given) * 1e38 * 1e38, scaler, scheduler, plan)


def loses_its_weights(model, optimizer, batches, loss, scaler, scheduler, plan):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def loses_its_numbers_later(model, optimizer, batches, loss, scaler, scheduler, plan):
    """After the first step, and without a scaler to skip steps."""
    for group in optimizer.param_groups:
        group["lr"] = 1e30
    for window in (batches[:3], batches[3:6], batches[6:9]):
        optimizer.zero_grad()
        for batch in window:
            loss(model, batch).backward()
        optimizer.step()
