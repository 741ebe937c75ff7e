"""Small loops with bugs from public reports: each has a form that breaks a rule, and its repair."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from audited_loops import STEPS, X, Y, in_half, loss_of, small

TARGETS = X.sum(1)


def trained(loss, model=None, optimizer=None):
    """Train a model with ``loss(model)``."""
    if model is None:
        model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def softmax_twice(right):
    trained(lambda model: F.cross_entropy(model(X) if right else model(X).softmax(1), Y))


def softmax_with_smoothed_labels(right):
    trained(lambda model: F.cross_entropy(model(X) if right else model(X).softmax(-1), Y, label_smoothing=0.1))


def sigmoid_twice(right):
    labels = F.one_hot(Y).float()
    trained(lambda model: F.binary_cross_entropy_with_logits(model(X) if right else model(X).sigmoid(), labels))


def relu_before_cross_entropy(right):
    trained(lambda model: F.cross_entropy(model(X) if right else model(X).relu(), Y))


def probabilities_for_nll(right):
    trained(lambda model: F.nll_loss(model(X).log_softmax(1) if right else model(X).softmax(1), Y))


def scores_for_nll(right):
    trained(lambda model: F.nll_loss(model(X).log_softmax(1) if right else model(X), Y))


def scores_for_ctc(right):
    model, labels, lengths = nn.Linear(4, 3), torch.ones(2, 2).long(), torch.full((2,), 6)

    def loss(model):
        scores = model(X.view(6, 2, 4))
        return F.ctc_loss(scores.log_softmax(-1) if right else scores, labels, lengths, torch.full((2,), 2))

    trained(loss, model, torch.optim.SGD(model.parameters(), lr=0.1))


def softmax_over_samples(right):
    trained(lambda model: F.nll_loss(F.log_softmax(model(X), dim=-1 if right else 0), Y))


def regression(loss):
    model = nn.Linear(4, 1)
    trained(loss, model, torch.optim.SGD(model.parameters(), lr=0.1))


def column_and_row(right):
    regression(lambda model: F.mse_loss(model(X).squeeze(-1) if right else model(X), TARGETS))


def column_and_row_absolute(right):
    regression(lambda model: F.l1_loss(model(X).squeeze(-1) if right else model(X), TARGETS))


def column_minus_row(right):
    regression(lambda model: ((model(X).squeeze(-1) if right else model(X)) - TARGETS).square().mean())


def softmax_of_one(right):
    labels = (Y > 0).float()[:, None]
    regression(lambda model: F.binary_cross_entropy(model(X).sigmoid() if right else model(X).softmax(1), labels))


def unfrozen_too_late(right):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(STEPS):
        if step == 2:
            model[0].requires_grad_(True)
            if right:
                optimizer.add_param_group({"params": model[0].parameters()})
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


class Stack(nn.Module):
    """Two layers in a list, which PyTorch sees only if it is a ``ModuleList``."""

    def __init__(self, right):
        super().__init__()
        layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
        self.layers = nn.ModuleList(layers) if right else layers
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x)


def layers_in_a_list(right):
    model = Stack(right)
    trained(loss_of, model, torch.optim.SGD(model.parameters(), lr=0.1))


def module_with_an_attribute(right):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    if right:
        model[0].requires_grad_(False)
    else:
        model[0].requires_grad = False
    trained(loss_of, model, torch.optim.SGD(model.parameters(), lr=0.1))


def emptied_at_the_start_of_an_epoch(right):
    model, optimizer = small()
    for _ in range(3):
        optimizer.zero_grad()
        for index in range(6 if right else 7):
            (loss_of(model) / 3).backward()
            if index % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    optimizer.zero_grad()


def frozen_with_a_zero_in_its_gradient(right):
    model, _ = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(2 * STEPS):
        if step == STEPS:
            model[0].requires_grad_(False)
        optimizer.zero_grad(set_to_none=right)
        loss_of(model).backward()
        optimizer.step()


def batch_normalization_frozen_once(right, once=True):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[1].eval()
    for epoch in range(3):
        if epoch or once:
            model.train()
        if right:
            model[1].eval()
        trained(loss_of, model, optimizer)
        model.eval()


def batch_normalization_frozen_for_an_epoch(right):
    batch_normalization_frozen_once(right, once=False)


def best_state_by_reference(right):
    model, optimizer = small()
    trained(loss_of, model, optimizer)
    best = model.state_dict()
    if right:
        best = {name: t.clone() for name, t in best.items()}
    trained(loss_of, model, optimizer)
    model.load_state_dict(best)


def scaler_every_epoch(right):
    model, optimizer = small()
    scaler = None
    for _ in range(3):
        if scaler is None or not right:
            scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale(in_half(model)).backward()
            scaler.step(optimizer)
            scaler.update()


def one_optimizer_never_steps(right):
    body, head = nn.Linear(4, 8), nn.Linear(8, 3)
    of_body, of_head = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (body, head))
    for _ in range(STEPS):
        of_body.zero_grad()
        of_head.zero_grad()
        F.cross_entropy(head(body(X)), Y).backward()
        of_body.step()
        if right:
            of_head.step()


def no_step_at_all(right, by_model=False):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        (model if by_model else optimizer).zero_grad()
        loss_of(model).backward()
        if right:
            optimizer.step()


def gradients_without_a_step(right):
    """A pass that only looks at gradients has this form too."""
    no_step_at_all(right, by_model=True)


def optimizer_every_epoch(right):
    model, optimizer = small()
    for epoch in range(3):
        if epoch == 0 or not right:
            optimizer = torch.optim.Adam(model.parameters())
        trained(loss_of, model, optimizer)


def model_replaced(right):
    model, optimizer = small()
    if not right:
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    trained(loss_of, model, optimizer)


def adversaries(right, toggled=False, same=False):
    """A generator that is trained first; its critic's loss reaches it unless it is detached."""
    generator, critic = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    of_generator = torch.optim.Adam((generator if right or not same else critic).parameters(), lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        fake = generator(torch.randn(8, 2))
        critic.requires_grad_(not toggled)
        generator.zero_grad()
        F.softplus(-critic(fake)).mean().backward(retain_graph=True)
        critic.requires_grad_(True)
        of_critic.zero_grad()
        shown = fake.detach() if right or same else fake
        (F.softplus(critic(shown)) + F.softplus(-critic(X[:8]))).mean().backward()
        of_critic.step()
        of_generator.step()


def critic_trains_the_generator(right):
    adversaries(right)


def frozen_critic_trains_the_generator(right):
    adversaries(right, toggled=True)


def both_optimizers_of_the_critic(right):
    adversaries(right, same=True)


def kept_by_reference(right):
    model, optimizer = small()
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p)
    for _ in range(STEPS):
        each = []
        for half in (slice(0, 6), slice(6, 12)):
            optimizer.zero_grad(set_to_none=False)
            loss_of(model, X[half], Y[half]).backward()
            each.append([p.grad.clone() if right else p.grad for p in parameters])
        for p, a, b in zip(parameters, *each, strict=True):
            p.grad = a + b
        optimizer.step()


def perturbation_stays(right):
    model, optimizer = small()
    for _ in range(STEPS):
        loss_of(model).backward()
        before = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * p.grad)
        optimizer.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for p, old in zip(model.parameters(), before, strict=True):
                if right:
                    p.copy_(old)
        optimizer.step()
        optimizer.zero_grad()


def past_the_scaler(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model)).backward()
        scaler.unscale_(optimizer)
        if right:
            scaler.step(optimizer)
        else:
            optimizer.step()
        scaler.update()


def chain_used_up(right):
    model, optimizer = small()
    parameters = itertools.chain(model[0].parameters(), model[2].parameters())
    if right:
        parameters = list(parameters)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()


def one_part_differentiated_twice(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        first, second = loss_of(model), loss_of(model, 2 * X)
        if not right:
            first.backward(retain_graph=True)
        (first + second).backward()
        optimizer.step()


def meta_gradients_left_over(right):
    model, optimizer = small()
    for _ in range(STEPS):
        if right:
            optimizer.zero_grad()
        names, values = zip(*model.named_parameters(), strict=True)
        slopes = torch.autograd.grad(loss_of(model), values, create_graph=True)
        fast = {name: p - 0.1 * g for name, p, g in zip(names, values, slopes, strict=True)}
        F.cross_entropy(torch.func.functional_call(model, fast, X), Y).backward()
        optimizer.step()


def in_the_backward_without_zero_grad(right):
    model, _ = small()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        if right:
            optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        loss_of(model).backward()


def given_up_for_good(right):
    """An infinite gradient that is not emptied makes all later ones infinite, so no step follows any more."""
    model, optimizer = small()
    for step in range(2 * STEPS):
        (loss_of(model) * (float("inf") if step == STEPS else 1.0)).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            optimizer.zero_grad()
        elif right:
            optimizer.zero_grad()


def mean_over_ignored(right):
    model, optimizer = small()
    for step in range(STEPS):
        y = Y.clone()[: 12 - step % 2]
        y[6 + step % 3 :] = -100
        losses = F.cross_entropy(model(X[: len(y)]), y, reduction="none")
        optimizer.zero_grad()
        (losses.sum() / ((y != -100).sum() if right else losses.numel())).backward()
        optimizer.step()


def accumulated(factor, again=1.0):
    """Accumulate three microbatches, with a factor for each loss and one for the gradients."""
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) * factor).backward()
        for p in model.parameters():
            p.grad.mul_(again)
        optimizer.step()


def multiplied_instead_of_divided(right):
    accumulated(1 / 3 if right else 3.0)


def losses_and_gradients_divided(right):
    accumulated(1.0 if right else 1 / 3, again=1 / 3)


def planned(schedule, right, every=1):
    model, optimizer = small()
    schedule = schedule(optimizer)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        if right or step % every == every - 1:
            schedule.step()


def one_cycle_is_over(right):
    steps = STEPS if right else STEPS - 2
    planned(lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps), right)


def one_cycle_by_epoch(right):
    planned(lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=STEPS), right, every=3)


def cosine_past_its_end(right):
    steps = STEPS if right else 3
    planned(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), right)


BROKEN = {
    softmax_twice: ("GP421", "wrong"),
    softmax_with_smoothed_labels: ("GP421", "wrong"),
    sigmoid_twice: ("GP421", "wrong"),
    probabilities_for_nll: ("GP422", "wrong"),
    scores_for_nll: ("GP422", "unusual"),
    scores_for_ctc: ("GP422", "wrong"),
    softmax_over_samples: ("GP423", "wrong"),
    column_and_row: ("GP424", "wrong"),
    column_and_row_absolute: ("GP424", "wrong"),
    column_minus_row: ("GP424", "unusual"),
    softmax_of_one: ("GP425", "wrong"),
    relu_before_cross_entropy: ("GP426", "unusual"),
    unfrozen_too_late: ("GP503", "wrong"),
    layers_in_a_list: ("GP504", "wrong"),
    module_with_an_attribute: ("GP505", "wrong"),
    frozen_with_a_zero_in_its_gradient: ("GP506", "wrong"),
    best_state_by_reference: ("GP507", "wrong"),
    batch_normalization_frozen_once: ("GP621", "wrong"),
    batch_normalization_frozen_for_an_epoch: ("GP621", "unusual"),
    scaler_every_epoch: ("GP206", "unusual"),
    emptied_at_the_start_of_an_epoch: ("GP109", "unusual"),
    one_optimizer_never_steps: ("GP841", "wrong"),
    no_step_at_all: ("GP841", "wrong"),
    gradients_without_a_step: ("GP841", "unusual"),
    optimizer_every_epoch: ("GP842", "unusual"),
    model_replaced: ("GP843", "wrong"),
    both_optimizers_of_the_critic: ("GP844", "wrong"),
    critic_trains_the_generator: ("GP122", "wrong"),
    frozen_critic_trains_the_generator: ("GP122", "wrong"),
    kept_by_reference: ("GP120", "wrong"),
    perturbation_stays: ("GP121", "unusual"),
    past_the_scaler: ("GP202", "unusual"),
    chain_used_up: ("GP304", "wrong"),
    one_part_differentiated_twice: ("GP806", "wrong"),
    meta_gradients_left_over: ("GP101", "wrong"),
    in_the_backward_without_zero_grad: ("GP101", "wrong"),
    given_up_for_good: ("GP104", "wrong"),
    mean_over_ignored: ("GP405", "wrong"),
    multiplied_instead_of_divided: ("GP404", "wrong"),
    losses_and_gradients_divided: ("GP406", "wrong"),
    one_cycle_is_over: ("GP913", "wrong"),
    one_cycle_by_epoch: ("GP831", "unusual"),
    cosine_past_its_end: ("GP832", "unusual"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""
