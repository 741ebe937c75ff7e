"""Small training loops as people write them: for each rule one that breaks it, and its repair."""

import torch
import torch.nn.functional as F
from torch import nn

STEPS = 6
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
Y = torch.tensor([0, 1, 2] * 4)


def small():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loss_of(model, x=X, y=Y):
    return F.cross_entropy(model(x), y)


def never_zeroed(right):
    model, optimizer = small()
    for _ in range(STEPS):
        if right:
            optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def zeroed_once_an_epoch(right):
    model, optimizer = small()
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(3):
            if right:
                model.zero_grad()
            loss_of(model).backward()
            optimizer.step()


def zeroed_before_the_step(right):
    model, optimizer = small()
    for _ in range(STEPS):
        if right:
            optimizer.zero_grad()
        loss_of(model).backward()
        if not right:
            optimizer.zero_grad()
        optimizer.step()


def zeroed_between_microbatches(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            if not right:
                optimizer.zero_grad()
            (loss_of(model, x, y) / 3).backward()
        optimizer.step()


def skipped_for_a_large_norm(right):
    model, optimizer = small()
    for step in range(STEPS):
        loss_of(model, X * (1000 if step == 3 else 1)).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        if norm > 100:
            if right:
                optimizer.zero_grad()
            continue
        optimizer.step()
        optimizer.zero_grad()


def closure(right):
    model, _ = small()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def evaluate():
        if right:
            optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.zero_grad()
        optimizer.step(evaluate)


def sharpness_aware(right):
    model, optimizer = small()
    for _ in range(STEPS):
        loss_of(model).backward()
        with torch.no_grad():
            before = [p.clone() for p in model.parameters()]
            for p in model.parameters():
                p.add_(0.05 * p.grad)
        if right:
            optimizer.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for p, old in zip(model.parameters(), before, strict=True):
                p.copy_(old)
        optimizer.step()
        optimizer.zero_grad()


def generator_and_critic(right):
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        of_generator.zero_grad()
        critic(generator(torch.randn(8, 2))).mean().neg().backward()
        of_generator.step()
        if right:
            of_critic.zero_grad()
        fake = generator(torch.randn(8, 2)).detach()
        (critic(fake).mean() - critic(X).mean()).backward()
        of_critic.step()
        of_critic.zero_grad()


def scaled(right, clip=False, bypass=False, unscaled_loss=False, twice=False, moved=False):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 if bypass else 1024.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        for index in range(2):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = loss_of(model) / 2
            if unscaled_loss and not right and step % 2:
                loss.backward()
            elif twice and not right:
                scaler.scale(scaler.scale(loss)).backward()
            else:
                scaler.scale(loss).backward()
            if moved and not right and index == 0:
                scaler.update(4096.0 if step % 2 else 2048.0)
        if clip:
            if right:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if bypass and not right:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()


def clipped_scaled(right):
    scaled(right, clip=True)


def scaler_bypassed(right):
    scaled(right, bypass=True)


def some_losses_not_scaled(right):
    scaled(right, unscaled_loss=True)


def loss_scaled_twice(right):
    scaled(right, twice=True)


def scale_moved(right):
    scaled(right, moved=True)


def scaler_made_again(right):
    model, optimizer = small()

    def fresh():
        return torch.amp.GradScaler("cpu", init_scale=2.0**127)

    scaler = fresh()
    for epoch in range(3):
        if not right and epoch:
            scaler = fresh()
        for _ in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = 1e6 * loss_of(model)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def clipped_after_the_step(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        if right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if not right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def clipped_every_microbatch(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / 3).backward()
            if not right:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def one_layer_clipped(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters() if right else model[0].parameters(), 0.1)
        optimizer.step()


def padded(index):
    """Targets of which the last ones are padding, more in each later microbatch."""
    y = Y.clone()
    y[12 - 3 * index :] = -100
    return y


def mean_of_means(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        tokens = sum(int((padded(i) != -100).sum()) for i in range(3))
        for index in range(3):
            if right:
                loss = F.cross_entropy(model(X), padded(index), reduction="sum") / tokens
            else:
                loss = F.cross_entropy(model(X), padded(index)) / 3
            loss.backward()
        optimizer.step()


def short_window(right):
    model, optimizer = small()
    batches = 7
    for _ in range(2):
        for index in range(batches):
            length = min(3, batches - index // 3 * 3) if right else 3
            (loss_of(model) / length).backward()
            if (index + 1) % 3 == 0 or index + 1 == batches:
                optimizer.step()
                optimizer.zero_grad()


def window_too_long(right):
    model, optimizer = small()
    for _ in range(3):
        for index in range(6 if right else 7):
            (loss_of(model) / 3).backward()
            if (index + 1) % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
    optimizer.zero_grad()


def not_divided(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / (3 if right else 1)).backward()
        optimizer.step()


def divided_twice(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / (3 if right else 9)).backward()
        optimizer.step()


def mean_over_padding(right):
    model, optimizer = nn.Linear(4, 1), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        length = 4 + step % 3
        x = torch.randn(3, length, 4)
        mask = (torch.arange(length) < torch.tensor([[length], [2], [1 + step % 2]])).float()
        errors = F.mse_loss(model(x).squeeze(-1), torch.zeros(3, length), reduction="none") * mask
        optimizer.zero_grad()
        (errors.sum() / mask.sum() if right else errors.mean()).backward()
        optimizer.step()


def adapter_after_the_optimizer(right):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    if right:
        model.append(nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if not right:
        model.append(nn.Linear(8, 3))
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def classifier_in_no_optimizer(right):
    encoder, classifier = nn.Linear(4, 8), nn.Linear(8, 3)
    parameters = [*encoder.parameters(), *(classifier.parameters() if right else ())]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(classifier(encoder(X)), Y).backward()
        optimizer.step()


def teacher_in_training_mode(right):
    pair = nn.ModuleDict({
        "teacher": nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).requires_grad_(False),
        "student": nn.Sequential(nn.Linear(4, 3)),
    })  # fmt: skip
    pair["teacher"].eval()
    optimizer = torch.optim.SGD(pair["student"].parameters(), lr=0.1)
    for _ in range(STEPS):
        pair.train()
        if right:
            pair["teacher"].eval()
        optimizer.zero_grad()
        F.mse_loss(pair["student"](X), pair["teacher"](X)).backward()
        optimizer.step()


def trained_in_evaluation_mode(right):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss_of(model)
        if right:
            model.train()


def overwritten(right):
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            for p, g in zip(parameters, torch.autograd.grad(loss_of(model, x, y) / 3, parameters), strict=True):
                p.grad = g if p.grad is None or not right else p.grad + g
        optimizer.step()


def one_group_zeroed(right):
    model, _ = small()
    optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    for _ in range(STEPS):
        loss_of(model).backward()
        optimizer.step()
        for p in model.parameters() if right else optimizer.param_groups[0]["params"]:
            p.grad = None


def last_microbatches_never_stepped(right):
    model, optimizer = small()
    for index in range(9 if right else 8):
        (loss_of(model) / 3).backward()
        if (index + 1) % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()


def in_half(model, x=X, y=Y):
    with torch.autocast("cpu", dtype=torch.float16):
        return loss_of(model, x, y)


def scale_set_by_hand(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        if step == 3 and not right:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 128.0})
        scaler.scale(in_half(model)).backward()
        scaler.step(optimizer)
        scaler.update()


def unscaled_by_hand(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model)).backward()
        if not right:
            for p in model.parameters():
                p.grad.div_(scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()


def exhausted_generator(right):
    model, optimizer = small()
    parameters = model.parameters()
    list(parameters)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters() if right else parameters, 0.1)
        optimizer.step()


def clipped_by_parts(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        with torch.no_grad():
            for p in model.parameters():
                p.grad.mul_(0.1 / (norm if right else p.grad.norm()))
        optimizer.step()


def always_at_the_threshold(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        factor = 3.0 / torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        with torch.no_grad():
            for p in model.parameters():
                p.grad.mul_(factor.clamp(max=1.0) if right else factor)
        optimizer.step()


def listed_twice(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *(() if right else (model[0].weight,))], 0.1)
        optimizer.step()


def loss_in_half(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        out = model(X).bfloat16()
        out = out.float() if right else out
        F.mse_loss(out, torch.zeros_like(out)).backward()
        optimizer.step()


def regularized():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))


def evaluating_throughout(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if not right:
        model.eval()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def layers_stay_in_evaluation(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        if step == 3:
            for layer in model:
                layer.training = right
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def validated_in_training_mode(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        with torch.no_grad():
            model.train(not right)
            loss_of(model)
            model.train()


def seeded_every_step(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        if not right:
            torch.manual_seed(0)
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        torch.randn(1)


def scaler_without_autocast(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model) if right else loss_of(model)).backward()
        scaler.step(optimizer)
        scaler.update()


def by_hand(write):
    """A loop that writes the gradients of ``autograd.grad`` with ``write(parameters, gradients)``."""
    model, optimizer = small()
    parameters = list(model.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        write(parameters, torch.autograd.grad(loss_of(model), parameters))
        optimizer.step()


def assign(parameters, gradients):
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g


def swapped(right):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parameters = list(model.parameters())
    for _ in range(STEPS):
        first, bias, second, other = torch.autograd.grad(loss_of(model), parameters)
        assign(parameters, (first, bias, second, other) if right else (second, bias, first, other))
        optimizer.step()


def last_gradient_not_written(right):
    by_hand(
        lambda parameters, gradients: assign(parameters if right else parameters[:-1], gradients[: 4 if right else 3])
    )


def written_otherwise(right):
    by_hand(lambda parameters, gradients: assign(parameters, gradients if right else [g.sign() for g in gradients]))


def zeros_for_none(right):
    model, optimizer = small()
    unused = nn.Linear(2, 2)
    parameters = [*model.parameters(), *unused.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model) + (unused(torch.ones(2)).sum() if step == 0 else 0)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            p.grad = torch.zeros_like(p) if g is None and not right else g
        optimizer.step()


def shared_memory(right):
    one, other = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
    optimizer = torch.optim.SGD([one, other], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for index in range(2):
            a, b = torch.autograd.grad(((one + other) * torch.ones(3)).sum() * (1 + index), [one, other])
            if one.grad is None:
                one.grad, other.grad = (a.clone(), b.clone()) if right else (a, b)
            else:
                one.grad.add_(a)
                other.grad.add_(b)
        optimizer.step()


def stepped_twice(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        if not right:
            optimizer.step()


def stepped_first(right):
    model, optimizer = small()
    if not right:
        optimizer.step()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def stepped_on_infinity(right):
    model, optimizer = small()
    for step in range(STEPS):
        optimizer.zero_grad()
        (loss_of(model) * (float("inf") if step == 3 and not right else 1.0)).backward()
        optimizer.step()


def weights_written(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        if not right:
            with torch.no_grad():
                model[0].weight.mul_(0.9)


def moments_forgotten(right):
    model, _ = small()
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        if step == 2 and not right:
            optimizer.state.clear()


def differentiated_twice(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward(retain_graph=True)
        if not right:
            loss.backward()
        optimizer.step()


def never_reached(right):
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        hidden = model[0](X)
        F.cross_entropy(model[1](hidden if right else hidden.detach()), Y).backward()
        optimizer.step()


def scheduled(right, before=False, every=False, twice=False, again=False, written=False, never=False):
    model, optimizer = small()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(6), Y.split(6), strict=True):
            (loss_of(model, x, y) / 2).backward()
            if every and not right:
                schedule.step()
        if before and not right:
            schedule.step()
        optimizer.step()
        if again and not right and step == 3:
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        if right or not (before or every or never):
            schedule.step()
        if twice and not right:
            schedule.step()
        if written and not right and step == 2:
            optimizer.param_groups[0]["lr"] = 0.5


def schedule_before_the_step(right):
    scheduled(right, before=True)


def schedule_every_microbatch(right):
    scheduled(right, every=True)


def schedule_twice_a_step(right):
    scheduled(right, twice=True)


def schedule_made_again(right):
    scheduled(right, again=True)


def rate_written(right):
    scheduled(right, written=True)


def schedule_forgotten(right):
    scheduled(right, never=True)


def schedule_on_skipped_steps(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(2 * STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model)).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if not right or scaler.get_scale() >= scale:
            schedule.step()


def scaler_steps(*calls):
    """A loop that makes these calls of a scaler, by name, in each of its steps."""
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    make = {"unscale": lambda: scaler.unscale_(optimizer), "step": lambda: scaler.step(optimizer),
            "update": scaler.update, "empty": optimizer.zero_grad,
            "closure": lambda: scaler.step(optimizer, closure=lambda: None),
            "backward": lambda: scaler.scale(in_half(model)).backward(),
            "unscaled backward": lambda: in_half(model).backward()}  # fmt: skip
    for _ in range(STEPS):
        for call in calls:
            make[call]()


RIGHT_STEP = ("empty", "backward", "unscale", "step", "update")


def two_unscales(right):
    scaler_steps(*(RIGHT_STEP if right else ("empty", "backward", "unscale", "unscale", "step", "update")))


def no_update(right):
    scaler_steps(*(RIGHT_STEP if right else ("empty", "backward", "step")))


def emptied_before_the_scaler(right):
    scaler_steps(*(RIGHT_STEP if right else ("backward", "empty", "step", "update")))


def scaler_never_scaled(right):
    scaler_steps(*(RIGHT_STEP if right else ("empty", "unscaled backward", "unscale")))


def closure_for_the_scaler(right):
    scaler_steps(*(RIGHT_STEP if right else ("empty", "backward", "closure", "update")))


def unused_in_grad(right):
    model, optimizer = small()
    parameters = [*model.parameters(), *nn.Linear(2, 2).parameters()]
    assign(parameters, torch.autograd.grad(loss_of(model), parameters, allow_unused=right))
    optimizer.step()


def gradient_of_another_dtype(right):
    model, optimizer = small()
    for p, g in zip(model.parameters(), torch.autograd.grad(loss_of(model), list(model.parameters())), strict=True):
        p.grad = g if right else g.half()
    optimizer.step()


def running_total(right):
    model, optimizer = small()
    total = 0.0
    for _ in range(STEPS):
        optimizer.zero_grad()
        total = loss_of(model) + (0.0 if right else total)
        total.backward()
        optimizer.step()


def stepped_between(right):
    model, optimizer = small()
    first, second = loss_of(model), loss_of(model, X * 2)
    first.backward()
    if not right:
        optimizer.step()
    second.backward()
    optimizer.step()


def detached(right):
    model, optimizer = small()
    loss = loss_of(model)
    (loss if right else loss.detach()).backward()
    optimizer.step()


def recomputed_otherwise(right):
    from torch.utils.checkpoint import checkpoint

    model, optimizer = small()
    calls = []

    def block(x):
        calls.append(x)
        return model(x if right or len(calls) == 1 else x[:6])

    F.cross_entropy(checkpoint(block, X, use_reentrant=False), Y).backward()
    optimizer.step()


def reentrant(right):
    from torch.utils.checkpoint import checkpoint

    model, optimizer = small()
    x, parameters = X.clone().requires_grad_(), list(model.parameters())
    loss = F.cross_entropy(checkpoint(model, x, use_reentrant=not right), Y)
    assign(parameters, torch.autograd.grad(loss, [*parameters, x], allow_unused=True)[:4])
    optimizer.step()


BROKEN = {
    one_group_zeroed: ("GP108", "wrong"),
    last_microbatches_never_stepped: ("GP109", "unusual"),
    scale_set_by_hand: ("GP207", "unusual"),
    unscaled_by_hand: ("GP208", "wrong"),
    exhausted_generator: ("GP304", "wrong"),
    clipped_by_parts: ("GP305", "unusual"),
    always_at_the_threshold: ("GP306", "unusual"),
    listed_twice: ("GP307", "wrong"),
    loss_in_half: ("GP407", "unusual"),
    evaluating_throughout: ("GP603", "unusual"),
    layers_stay_in_evaluation: ("GP604", "unusual"),
    validated_in_training_mode: ("GP605", "unusual"),
    seeded_every_step: ("GP606", "unusual"),
    scaler_without_autocast: ("GP607", "unusual"),
    swapped: ("GP702", "wrong"),
    last_gradient_not_written: ("GP703", "unusual"),
    written_otherwise: ("GP704", "unusual"),
    zeros_for_none: ("GP705", "unusual"),
    shared_memory: ("GP706", "unusual"),
    stepped_twice: ("GP801", "unusual"),
    stepped_first: ("GP802", "unusual"),
    stepped_on_infinity: ("GP803", "unusual"),
    weights_written: ("GP804", "unusual"),
    moments_forgotten: ("GP805", "unusual"),
    differentiated_twice: ("GP806", "wrong"),
    never_reached: ("GP807", "unusual"),
    schedule_before_the_step: ("GP811", "unusual"),
    schedule_every_microbatch: ("GP812", "unusual"),
    schedule_twice_a_step: ("GP813", "unusual"),
    schedule_on_skipped_steps: ("GP814", "unusual"),
    schedule_made_again: ("GP815", "unusual"),
    rate_written: ("GP816", "unusual"),
    schedule_forgotten: ("GP817", "unusual"),
    two_unscales: ("GP901", "wrong"),
    no_update: ("GP902", "wrong"),
    emptied_before_the_scaler: ("GP903", "wrong"),
    scaler_never_scaled: ("GP904", "wrong"),
    closure_for_the_scaler: ("GP905", "wrong"),
    unused_in_grad: ("GP906", "wrong"),
    gradient_of_another_dtype: ("GP907", "wrong"),
    running_total: ("GP908", "wrong"),
    stepped_between: ("GP909", "wrong"),
    detached: ("GP910", "wrong"),
    recomputed_otherwise: ("GP911", "wrong"),
    reentrant: ("GP912", "wrong"),
    never_zeroed: ("GP101", "wrong"),
    zeroed_once_an_epoch: ("GP101", "wrong"),
    zeroed_before_the_step: ("GP102", "wrong"),
    zeroed_between_microbatches: ("GP103", "wrong"),
    skipped_for_a_large_norm: ("GP104", "wrong"),
    closure: ("GP105", "wrong"),
    sharpness_aware: ("GP106", "wrong"),
    generator_and_critic: ("GP107", "unusual"),
    clipped_scaled: ("GP201", "wrong"),
    scaler_bypassed: ("GP202", "wrong"),
    some_losses_not_scaled: ("GP203", "wrong"),
    loss_scaled_twice: ("GP204", "wrong"),
    scale_moved: ("GP205", "wrong"),
    scaler_made_again: ("GP206", "wrong"),
    clipped_after_the_step: ("GP301", "wrong"),
    clipped_every_microbatch: ("GP302", "wrong"),
    one_layer_clipped: ("GP303", "unusual"),
    mean_of_means: ("GP401", "wrong"),
    short_window: ("GP402", "wrong"),
    window_too_long: ("GP403", "wrong"),
    not_divided: ("GP404", "unusual"),
    mean_over_padding: ("GP405", "wrong"),
    divided_twice: ("GP406", "unusual"),
    adapter_after_the_optimizer: ("GP501", "wrong"),
    classifier_in_no_optimizer: ("GP502", "unusual"),
    teacher_in_training_mode: ("GP601", "wrong"),
    trained_in_evaluation_mode: ("GP602", "wrong"),
    overwritten: ("GP701", "wrong"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""
