"""More right loops of many methods: averages, restarts, checkpoints, padding, casts, schedules."""

import copy

import torch
import torch.nn.functional as F
from more_audited_loops import IGNORED, PADDED
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from audited_loops import X, Y, loss_of, regularized, small

STEPS = 12


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def average_swapped_in_for_validation():
    model, _ = small()
    optimizer, average = adamw(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        average.update_parameters(model)
        if step % 4 == 3:
            kept = copy.deepcopy(model.state_dict())
            model.load_state_dict(average.module.state_dict())
            with torch.no_grad():
                loss_of(model.eval())
            model.load_state_dict(kept)
            model.train()


def averages_as_buffers():
    model, _ = small()
    optimizer = adamw(model)
    for name, p in list(model.named_parameters()):
        model.register_buffer("average_" + name.replace(".", "_"), p.detach().clone())
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / 3).backward()
        optimizer.step()
        with torch.no_grad():
            for name, p in model.named_parameters():
                getattr(model, "average_" + name.replace(".", "_")).lerp_(p, 0.1)


def perturbation_taken_back_by_subtraction():
    model, _ = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4, momentum=0.9)
    for _ in range(STEPS):
        loss_of(model).backward()
        added = [0.05 * p.grad / p.grad.norm() for p in model.parameters()]
        with torch.no_grad():
            for p, a in zip(model.parameters(), added, strict=True):
                p.add_(a)
        optimizer.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for p, a in zip(model.parameters(), added, strict=True):
                p.sub_(a)
        optimizer.step()
        optimizer.zero_grad()


def autocast_around_each_step():
    model, optimizer = small()
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()


def autocast_without_a_cache():
    model, optimizer = small()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()


def padded_and_divided_in_the_gradients():
    model, optimizer = small()
    for at in range(0, len(PADDED), 2):
        optimizer.zero_grad()
        tokens = 0
        for y in PADDED[at : at + 2]:
            F.cross_entropy(model(X), y, reduction="sum").backward()
            tokens += int((y != IGNORED).sum())
        for p in model.parameters():
            p.grad.div_(tokens)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def coefficient_that_grows():
    model, optimizer = small()
    for step, y in enumerate(PADDED):
        optimizer.zero_grad()
        (F.cross_entropy(model(X), y) * (step + 1) / len(PADDED)).backward()
        optimizer.step()


def minimax():
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator, of_critic = adamw(generator), adamw(critic)
    for _ in range(STEPS):
        of_critic.zero_grad()
        fake = generator(torch.randn(12, 2))
        real = F.binary_cross_entropy_with_logits(critic(X), torch.ones(12, 1))
        (real + F.binary_cross_entropy_with_logits(critic(fake.detach()), torch.zeros(12, 1))).backward()
        of_critic.step()
        of_generator.zero_grad()
        (-F.binary_cross_entropy_with_logits(critic(fake), torch.zeros(12, 1))).backward()
        of_generator.step()


def zeros_for_parameters_that_are_used():
    model, _ = small()
    optimizer = adamw(model)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        loss_of(model).backward()
        optimizer.step()


def units_that_die_and_come_back():
    model, _ = small()
    optimizer = adamw(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        hidden = model[0](X) - (100 if step % 2 else 0)
        F.cross_entropy(model[2](hidden.relu()), Y).backward()
        optimizer.step()


def two_schedulers():
    model, optimizer = small()
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        warmup.step()
        if step % 4 == 3:
            plateau.step(float(loss))


def update_left_out_but_not_its_schedule():
    model, optimizer = small()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        if step == 5:
            schedule.step()
            continue
        optimizer.step()
        schedule.step()


def dropout_in_a_checkpoint(reentrant=False):
    block, head = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3)), nn.Linear(8, 3)
    optimizer = torch.optim.AdamW([*block.parameters(), *head.parameters()])
    for _ in range(STEPS):
        optimizer.zero_grad()
        x = X.clone().requires_grad_()
        F.cross_entropy(head(checkpoint(block, x, use_reentrant=reentrant)), Y).backward()
        optimizer.step()


def dropout_in_a_reentrant_checkpoint():
    dropout_in_a_checkpoint(reentrant=True)


def momentum_encoder():
    """The encoder that follows does so in every forward, and is no average of the trained weights for itself."""
    model = nn.ModuleDict({"query": nn.Linear(4, 8), "key": nn.Linear(4, 8).requires_grad_(False)})
    optimizer = torch.optim.SGD(model["query"].parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(2):
            with torch.no_grad():
                for k, q in zip(model["key"].parameters(), model["query"].parameters(), strict=True):
                    k.lerp_(q, 0.01)
            (F.cross_entropy(model["query"](X) @ model["key"](X).T, torch.arange(12)) / 2).backward()
        optimizer.step()


def resumed_in_one_process():
    def made():
        model = regularized()
        optimizer = adamw(model)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return model, optimizer, schedule, torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)

    model, optimizer, schedule, scaler = parts = made()
    for _ in range(2):
        for _ in range(STEPS // 2):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_of(model)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
        states = copy.deepcopy([part.state_dict() for part in parts])
        model, optimizer, schedule, scaler = parts = made()
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)


def steps_inside_the_backward_with_decay():
    model, _ = small()
    optimizers = {p: torch.optim.AdamW([p], lr=0.1) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        loss_of(model).backward()


def growing_windows():
    model, optimizer = small()
    for step in range(STEPS):
        optimizer.zero_grad()
        length = 1 + step // 3
        for _ in range(length):
            (loss_of(model) / length).backward()
        optimizer.step()


def half_precision_throughout():
    model, _ = small()
    optimizer = adamw(model.bfloat16())
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (F.cross_entropy(model(x.bfloat16()).float(), y) / 3).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()


def penalties_on_the_weights():
    model, _ = small()
    optimizer = adamw(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        norms = sum(p.abs().sum() + p.square().sum() for p in model.parameters())
        (loss_of(model) + 1e-3 * norms).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def small_threshold_times_scale():
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1 * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()


class Trusting(torch.optim.SGD):
    """An optimizer that changes gradients in its step, each by a factor of its own, as LARS does."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(p.norm() / (p.grad.norm() + 1e-3))
                p.add_(p.grad, alpha=-group["lr"])


def gradients_changed_by_their_optimizer():
    model, _ = small()
    optimizer = Trusting(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def graph_kept_over_a_step():
    """The generator is trained through the critic as it was, whose graph is kept over the critic's step."""
    generator, critic = nn.Linear(2, 8), nn.Linear(8, 1)
    of_generator, of_critic = adamw(generator), adamw(critic)
    for _ in range(STEPS):
        of_critic.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            judged = critic(generator(torch.randn(12, 2)))
            real = critic(torch.randn(12, 8))
        (judged.float().mean() - real.float().mean()).backward(retain_graph=True)
        of_critic.step()
        of_generator.zero_grad()
        judged.float().mean().neg().backward()
        of_generator.step()


MORE_METHODS = [
    value
    for value in list(vars().values())
    if getattr(value, "__module__", "") == __name__ and value not in (adamw, Trusting)
]
