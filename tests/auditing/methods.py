"""Right loops of many methods, of which none may be called wrong."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

from audited_loops import STEPS, X, Y, loss_of, small


def actor_critic():
    body, actor, critic = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    of_actor = torch.optim.Adam([*body.parameters(), *actor.parameters()], lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        hidden = body(X).tanh()
        value = critic(hidden.detach()).squeeze(-1)
        advantage = (torch.randn(12) - value).detach()
        chosen = F.log_softmax(actor(hidden), -1)[torch.arange(12), Y]
        of_actor.zero_grad()
        of_critic.zero_grad()
        (-(chosen * advantage).mean() + F.mse_loss(value, torch.randn(12))).backward()
        of_actor.step()
        of_critic.step()


def generator_first():
    """The generator's backward leaves gradients in the critic, which are emptied before its own."""
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        of_critic.zero_grad()
        fake = generator(torch.randn(8, 2))
        (critic(fake.detach()).mean() - critic(X).mean()).backward()
        of_critic.step()
        of_generator.zero_grad()
        critic(fake).mean().neg().backward()
        of_generator.step()


def clipped_critic():
    critic = nn.Linear(4, 1)
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        critic(X).mean().backward(torch.tensor(1.0))
        critic(torch.randn(12, 4)).mean().backward(torch.tensor(-1.0))
        optimizer.step()
        for p in critic.parameters():
            p.data.clamp_(-0.01, 0.01)


def gradient_penalty():
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        x = X.clone().requires_grad_()
        out = critic(x).sum()
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        optimizer.zero_grad()
        (critic(X).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()).backward()
        optimizer.step()


def truncated_backpropagation():
    cell, head = nn.GRUCell(4, 8), nn.Linear(8, 3)
    optimizer = torch.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.1)
    hidden = torch.zeros(12, 8)
    for _ in range(STEPS):
        loss = 0.0
        for _ in range(3):
            hidden = cell(X, hidden)
            loss = loss + F.cross_entropy(head(hidden), Y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*cell.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        hidden = hidden.detach()


def many_epochs_a_batch():
    model, optimizer = small()
    for _ in range(2):
        with torch.no_grad():
            old = F.log_softmax(model(X), -1)[torch.arange(12), Y]
        for _ in range(3):
            ratio = (F.log_softmax(model(X), -1)[torch.arange(12), Y] - old).exp()
            optimizer.zero_grad()
            (-torch.min(ratio, ratio.clamp(0.8, 1.2))).mean().backward()
            optimizer.step()


def optimizer_in_the_backward():
    model, _ = small()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        loss_of(model).backward()


def lazy_layers():
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    model(X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def parameters_added_later():
    model, optimizer = small()
    for step in range(STEPS):
        if step == 3:
            model.append(nn.Linear(3, 3))
            optimizer.add_param_group({"params": model[-1].parameters()})
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def frozen_backbone():
    model, _ = small()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def averaged_with_a_target_network():
    model, optimizer = small()
    target = copy.deepcopy(model).requires_grad_(False)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.mse_loss(model(X), target(X) + 1).backward()
        optimizer.step()
        with torch.no_grad():
            for t, p in zip(target.parameters(), model.parameters(), strict=True):
                t.lerp_(p, 0.1)


def stochastic_averages():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average, schedule = AveragedModel(model), SWALR(optimizer, swa_lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        average.update_parameters(model)
        schedule.step()
    update_bn([X], average)


def class_weights():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(6), Y.split(6), strict=True):
            (F.cross_entropy(model(x), y, weight=torch.tensor([1.0, 2.0, 5.0])) / 2).backward()
        optimizer.step()


def gradient_caching():
    encoder = nn.Linear(4, 8)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.no_grad():
            out = torch.cat([encoder(x) for x in X.split(4)])
        out.requires_grad_()
        F.cross_entropy(out @ out.T, torch.arange(12)).backward()
        for x, g in zip(X.split(4), out.grad.split(4), strict=True):
            encoder(x).backward(g)
        optimizer.step()


def gradient_surgery():
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        each = []
        for half in (slice(0, 6), slice(6, 12)):
            optimizer.zero_grad()
            loss_of(model, X[half], Y[half]).backward()
            each.append([p.grad.clone() for p in parameters])
        for p, a, b in zip(parameters, *each, strict=True):
            p.grad = a + b - torch.minimum((a * b).sum(), torch.tensor(0.0)) * b
        optimizer.step()


def private_gradients():
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        total = [torch.zeros_like(p) for p in parameters]
        for x, y in zip(X, Y, strict=True):
            optimizer.zero_grad()
            loss_of(model, x[None], y[None]).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for t, p in zip(total, parameters, strict=True):
                t.add_(p.grad)
        for p, t in zip(parameters, total, strict=True):
            p.grad = (t + 0.1 * torch.randn_like(t)) / len(X)
        optimizer.step()


def reentrant_checkpoints():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        x = X.clone().requires_grad_()
        F.cross_entropy(checkpoint(model, x, use_reentrant=True), Y).backward()
        optimizer.step()


def wired_by_hand():
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            for p, g in zip(parameters, torch.autograd.grad(loss_of(model, x, y) / 3, parameters), strict=True):
                p.grad = g if p.grad is None else p.grad + g
        optimizer.step()


def summed_in_one_loss():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(loss_of(model, x, y) / 3 for x, y in zip(X.split(4), Y.split(4), strict=True)).backward()
        optimizer.step()


def smoothed_labels():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y, label_smoothing=0.1).backward()
        optimizer.step()


def validated_with_a_frozen_norm():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        model.train()
        model[1].eval()
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss_of(model)


def threshold_times_scale():
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()


def two_scaled_optimizers():
    one, another = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (one, another)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(one) + loss_of(another)
        scaler.scale(loss).backward()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
        scaler.update()


def a_norm_that_is_only_logged():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / 3).backward()
            nn.utils.get_total_norm(p.grad for p in model.parameters())
        optimizer.step()


def two_stages(steps=STEPS):
    for _ in range(2):
        model, optimizer = small()
        for _ in range(steps):
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()


METHODS = [value for value in list(vars().values()) if getattr(value, "__module__", "") == __name__]
