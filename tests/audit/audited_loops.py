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


BROKEN = {
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
