"""Right loops of several tasks, models and phases, written as people write them: nothing is said but what they do."""

import copy

import torch
import torch.nn.functional as F
from more_audited_loops import IGNORED
from torch import nn

from audited_loops import STEPS, X, Y, loss_of, small


def labels_of(task, index):
    """Return labels of which each task and step misses some."""
    return torch.where(torch.arange(12) < 2 + task + index % 3, IGNORED, Y)


def heads_with_missing_labels():
    """Differentiate one loss for each task, in a loop over their heads."""
    body, heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 3) for _ in range(3))
    optimizer = torch.optim.SGD([*body.parameters(), *heads.parameters()], lr=0.1)
    for index in range(STEPS):
        optimizer.zero_grad()
        hidden = body(X).relu()
        for task, head in enumerate(heads):
            F.cross_entropy(head(hidden), labels_of(task, index)).backward(retain_graph=True)
        optimizer.step()


def heads_with_forwards_of_their_own():
    body, heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 3) for _ in range(3))
    optimizer = torch.optim.SGD([*body.parameters(), *heads.parameters()], lr=0.1)
    for index in range(STEPS):
        optimizer.zero_grad()
        for task, head in enumerate(heads):
            F.cross_entropy(head(body(X).relu()), labels_of(task, index)).backward()
        optimizer.step()


def columns_with_missing_labels():
    """Differentiate one loss for each part of one output."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
    optimizer = torch.optim.Adam(model.parameters())
    for index in range(STEPS):
        optimizer.zero_grad()
        out = model(X).view(12, 3, 3)
        for task in range(3):
            (F.cross_entropy(out[:, task], labels_of(task, index)) / 3).backward(retain_graph=True)
        optimizer.step()


def measured_one_by_one():
    """Empty the gradients after each task to look at its own, then train on the sum of all."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in range(STEPS):
        out = model(X).view(12, 3, 3)
        kept = [torch.zeros_like(p) for p in model.parameters()]
        for task in range(3):
            optimizer.zero_grad()
            (F.cross_entropy(out[:, task], labels_of(task, index)) / 3).backward(retain_graph=True)
            for total, p in zip(kept, model.parameters(), strict=True):
                total += p.grad * (1 + task)
        for total, p in zip(kept, model.parameters(), strict=True):
            p.grad = total
        optimizer.step()


def gradients_of_tasks_by_hand():
    """Write the mean of all tasks' gradients, which autograd.grad returned one by one."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for index in range(STEPS):
        out = model(X).view(12, 3, 3)
        losses = [F.cross_entropy(out[:, task], labels_of(task, index)) for task in range(3)]
        each = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        for p, gradients in zip(parameters, zip(*each, strict=True), strict=True):
            p.grad = sum(gradients) / 3
        optimizer.step()


def microbatches_averaged_by_hand():
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        parts = zip(X.split(4), Y.split(4), strict=True)
        each = [torch.autograd.grad(loss_of(model, x, y), parameters) for x, y in parts]
        for p, gradients in zip(parameters, zip(*each, strict=True), strict=True):
            p.grad = sum(gradients) / 3
        optimizer.step()


def update(optimizer, loss):
    """Make one step of any model."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def actor_and_critic_by_one_function():
    """Train two models by one function; the actor's loss also reaches the critic, which empties it."""
    actor, critic = nn.Linear(4, 2), nn.Linear(6, 1)
    of_actor, of_critic = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())
    for _ in range(STEPS):
        update(of_critic, F.mse_loss(critic(torch.cat([X, torch.rand(12, 2)], 1)), torch.rand(12, 1)))
        update(of_actor, -critic(torch.cat([X, actor(X)], 1)).mean())


def momentum_encoder_in_the_optimizer():
    """Hand all parameters to the optimizer, also the frozen ones of an encoder that follows the trained one."""
    query, key = small()[0], small()[0].requires_grad_(False)
    optimizer = torch.optim.SGD(nn.ModuleList([query, key]).parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(STEPS):
        for p, q in zip(key.parameters(), query.parameters(), strict=True):
            p.data = p.data * 0.9 + q.data * 0.1
        update(optimizer, F.mse_loss(query(X), key(X)))


def group_added_beside_a_schedule():
    model, head = small()[0], nn.Linear(3, 3)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for index in range(STEPS):
        if index == 2:
            optimizer.add_param_group({"params": model.parameters(), "lr": 0.01})
        update(optimizer, F.cross_entropy(head(model(X)), Y))
        schedule.step()


class OwnRate(torch.optim.Optimizer):
    """An optimizer without a rate in its groups: it computes one in each step, as Adafactor does."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": None})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p -= 0.1 * p.grad / (1 + p.grad.norm())


def rate_of_its_own():
    model, _ = small()
    optimizer = OwnRate(model.parameters())
    for _ in range(STEPS):
        update(optimizer, loss_of(model))


def weights_of_losses_in_the_optimizer():
    model, _ = small()
    weights = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*model.parameters(), weights], lr=0.1)
    for _ in range(STEPS):
        out = model(X)
        one, other = F.cross_entropy(out, Y), out.square().mean()
        update(optimizer, (weights.neg().exp() * torch.stack([one, other]) + weights).sum())


def parameter_that_is_only_measured():
    """Read the gradient of a parameter beside the model, and empty it."""
    model, optimizer = small()
    mask = nn.Parameter(torch.ones(3))
    for _ in range(STEPS):
        update(optimizer, F.cross_entropy(model(X) * mask, Y))
        mask.grad = None


def gradients_logged_after_the_step():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        sum(float(p.grad.norm()) for p in model.parameters())


def clipped_at_the_head_of_the_loop():
    """Clip the gradients of the turn before, and step on them, before the next backward."""
    model, optimizer = small()
    loss_of(model).backward()
    for _ in range(STEPS):
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        loss_of(model).backward()


TASK_METHODS = [
    heads_with_missing_labels,
    heads_with_forwards_of_their_own,
    columns_with_missing_labels,
    measured_one_by_one,
    gradients_of_tasks_by_hand,
    microbatches_averaged_by_hand,
    actor_and_critic_by_one_function,
    momentum_encoder_in_the_optimizer,
    group_added_beside_a_schedule,
    rate_of_its_own,
    weights_of_losses_in_the_optimizer,
    parameter_that_is_only_measured,
    gradients_logged_after_the_step,
    clipped_at_the_head_of_the_loop,
]
"""Right loops."""


def clipped_first(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        if not right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        loss_of(model).backward()
        if right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def zeros_clipped_first(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        if not right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        loss_of(model).backward()
        if right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def clipped_by_hand_after_the_step(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        if not right:
            optimizer.step()
        for p in model.parameters():
            p.grad.mul_(0.5)
        if right:
            optimizer.step()


def emptied_after_writing(right):
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        gradients = torch.autograd.grad(loss_of(model), parameters)
        if right:
            optimizer.zero_grad()
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        if not right:
            optimizer.zero_grad()
        optimizer.step()


def never_written(right):
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        gradients = [torch.autograd.grad(loss_of(model, X[i::2], Y[i::2]), parameters) for i in range(2)]
        for p, *each in zip(parameters, *gradients, strict=True):
            if right:
                p.grad = sum(each) / 2
        optimizer.step()


def weights_of_losses_in_no_optimizer(right):
    model, _ = small()
    weights = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*model.parameters(), *([weights] if right else [])], lr=0.1)
    for _ in range(STEPS):
        out = model(X)
        one, other = F.cross_entropy(out, Y), out.square().mean()
        optimizer.zero_grad()
        (torch.exp(-weights[0]) * one + torch.exp(-weights[1]) * other + weights.sum()).backward()
        optimizer.step()


def both_factors_zero(right):
    base = small()[0].requires_grad_(False)
    down, up = nn.Parameter(torch.randn(2, 4) if right else torch.zeros(2, 4)), nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.AdamW([down, up])
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(base(X) + X @ down.T @ up.T, Y).backward()
        optimizer.step()


def critic_keeps_the_actors_gradients(right):
    actor, critic = nn.Linear(4, 2), nn.Linear(6, 1)
    of_actor, of_critic = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())

    def step(optimizer, loss):
        loss.backward()
        optimizer.step()
        (nn.ModuleList([actor, critic]) if right else optimizer).zero_grad()

    for _ in range(STEPS):
        step(of_critic, F.mse_loss(critic(torch.cat([X, torch.rand(12, 2)], 1)), torch.rand(12, 1)))
        step(of_actor, -critic(torch.cat([X, actor(X)], 1)).mean())


def one_cycle_once_an_epoch(right):
    model, optimizer = small()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=20)
    for index in range(12):
        update(optimizer, loss_of(model))
        if right or index == 9:
            schedule.step()


def clipped_in_the_place_of_the_model(right):
    """Hand a copy to the optimizer and to the clip: that has nothing to clip, and nothing is lost by it."""
    model, _ = small()
    held = model if right else copy.deepcopy(model)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(held.parameters(), 0.1)
        optimizer.step()
        model.zero_grad()


def rate_under_another_key(right):
    model, optimizer = small()
    for index in range(STEPS):
        update(optimizer, loss_of(model))
        optimizer.param_groups[0]["lr" if right else "learning_rate"] = 0.1 * 0.9**index


def emptied_in_a_step_with_an_idle_closure(right):
    model, optimizer = small()
    for _ in range(STEPS):
        if right:
            optimizer.zero_grad()
        loss_of(model).backward()
        if not right:
            optimizer.zero_grad()
        optimizer.step(lambda: None)


TASK_BROKEN = {
    clipped_first: ("GP304", "wrong"),
    zeros_clipped_first: ("GP304", "wrong"),
    clipped_by_hand_after_the_step: ("GP301", "unusual"),
    emptied_after_writing: ("GP102", "wrong"),
    never_written: ("GP703", "unusual"),
    weights_of_losses_in_no_optimizer: ("GP502", "unusual"),
    both_factors_zero: ("GP809", "unusual"),
    critic_keeps_the_actors_gradients: ("GP107", "unusual"),
    one_cycle_once_an_epoch: ("GP831", "unusual"),
    clipped_in_the_place_of_the_model: ("GP843", "wrong"),
    rate_under_another_key: ("GP833", "wrong"),
    emptied_in_a_step_with_an_idle_closure: ("GP102", "wrong"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""
