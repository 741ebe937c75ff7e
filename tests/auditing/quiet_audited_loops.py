"""Small loops with bugs that change no shape and raise nothing: each has a form that breaks a rule, and its repair."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, StepLR

from audited_loops import STEPS, X, Y, loss_of, small


def step(model, optimizer, loss=loss_of):
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()


def criterion_not_emptied(right):
    model, _ = small()
    scale = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.1)
    for _ in range(STEPS):
        model.zero_grad()
        if right:
            scale.grad = None
        F.cross_entropy(scale * model(X), Y).backward()
        optimizer.step()


def one_part_emptied_less_often(right):
    model, optimizer = small()
    for index in range(STEPS):
        model[0].zero_grad()
        if right or index % 3 == 0:
            model[2].zero_grad()
        loss_of(model).backward()
        optimizer.step()


class Descent(torch.optim.Optimizer):
    """An optimizer of somebody's own, which calls a closure once."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure):
        loss = closure()
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p -= 0.1 * p.grad
        return loss


def closure_of_an_own_optimizer(right):
    model, _ = small()
    optimizer = Descent(model.parameters())

    def closure():
        if right:
            optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)


def body_without_a_graph(right):
    body, head = nn.Linear(4, 8), nn.Linear(8, 3)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (body, head)]
    for _ in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        hidden = body(X)
        F.cross_entropy(head(hidden if right else hidden.detach()), Y).backward()
        for optimizer in optimizers:
            optimizer.step()


def rate_as_an_attribute(right):
    model, optimizer = small()
    for index in range(STEPS):
        step(model, optimizer)
        if right:
            optimizer.param_groups[0]["lr"] = 0.1 * 0.9**index
        else:
            optimizer.lr = 0.1 * 0.9**index


def rate_in_the_defaults(right):
    model, optimizer = small()
    for index in range(STEPS):
        step(model, optimizer)
        (optimizer.param_groups[0] if right else optimizer.defaults)["lr"] = 0.05 if index > 2 else 0.1


def warm_up_in_integers(right):
    model, optimizer = small()
    schedule = LambdaLR(optimizer, lambda index: min(1.0, (index + 1) / 4 if right else (index + 1) // 4))
    for _ in range(STEPS):
        step(model, optimizer)
        schedule.step()


def schedule_of_the_optimizer_before(right):
    model, optimizer = small()
    schedule = CosineAnnealingLR(optimizer, 8)
    optimizer = optimizer if right else torch.optim.Adam(model.parameters())
    for _ in range(STEPS):
        step(model, optimizer)
        schedule.step()


def schedule_of_one_head(right):
    model, _ = small()
    optimizer = torch.optim.Adam(model.parameters())
    schedule = ExponentialLR(optimizer if right else torch.optim.SGD(model[2].parameters(), lr=0.1), 0.9)
    for _ in range(STEPS):
        step(model, optimizer)
        schedule.step()


def schedule_at_the_beginning(right):
    model, optimizer = small()
    schedule = ExponentialLR(optimizer, 0.9)
    for _ in range(STEPS):
        if not right:
            schedule.step()
        step(model, optimizer)
        if right:
            schedule.step()


def schedule_every_epoch(right):
    model, optimizer = small()
    schedule = StepLR(optimizer, 2, 0.5)
    for _ in range(3):
        if not right:
            schedule = StepLR(optimizer, 2, 0.5)
        for _ in range(2):
            step(model, optimizer)
        schedule.step()


class Dropped(nn.Module):
    """A model that asks for its mode itself."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.outer(F.dropout(self.inner(x).relu(), 0.2, training=self.training))


def mode_of_a_functional_dropout(right):
    model = Dropped()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in range(STEPS):
        if right or not index:
            model.train()
        step(model, optimizer)
        model.eval()
        with torch.no_grad():
            loss_of(model)


def scores_of_some_nodes(right):
    model, optimizer = small()
    training = torch.arange(12) < 9
    for _ in range(STEPS):
        step(model, optimizer, lambda m: F.nll_loss((m(X).log_softmax(1) if right else m(X))[training], Y[training]))


def rounded_without_an_estimate(right):
    weight, head = nn.Parameter(torch.randn(8, 4)), nn.Linear(8, 3)
    optimizer = torch.optim.SGD([weight, *head.parameters()], lr=0.1)

    def quantized_loss(_):
        rounded = (4 * weight).round() / 4
        return F.cross_entropy(head(X @ (weight + (rounded - weight).detach() if right else rounded).T), Y)

    for _ in range(STEPS):
        step(None, optimizer, quantized_loss)


TOKENS = torch.tensor([[3, 4, 1, 0, 0, 0], [2, 1, 4, 3, 2, 1], [4, 4, 0, 0, 0, 0]])
"""Sequences of different lengths, with 0 for padding."""


def predicted(padding, loss):
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=padding), nn.Linear(4, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(model, optimizer, lambda m: loss(m(TOKENS[:, :-1]).flatten(0, 1), TOKENS[:, 1:].flatten()))


def padding_predicted(right):
    predicted(0, lambda logits, targets: F.cross_entropy(logits, targets, ignore_index=0 if right else -100))


class Weighted(nn.Module):
    """A model with weights of its tasks beside it."""

    def __init__(self, right):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.balance = nn.Parameter(torch.zeros(2)) if right else torch.zeros(2, requires_grad=True)


def balance_as_a_tensor(right):
    model = Weighted(right)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def balanced(m):
        losses = torch.stack([F.cross_entropy(m.inner(X), Y), m.inner(X).square().mean()])
        return (losses * (-m.balance).exp() + m.balance).sum()

    for _ in range(STEPS):
        step(model, optimizer, balanced)


class Listed(nn.Module):
    """A model whose parameters stand in a list."""

    def __init__(self, right):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        scales = [nn.Parameter(torch.ones(4)) for _ in range(2)]
        self.scales = nn.ParameterList(scales) if right else scales

    def forward(self, x):
        return self.inner(x * self.scales[0] * self.scales[1])


def parameters_in_a_list(right):
    model = Listed(right)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(model, optimizer)


def penalty_without_a_graph(right):
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)

    def loss(_):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=right)
        return critic(X).mean() - critic(-X).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    for _ in range(STEPS):
        step(critic, optimizer, loss)


def one_layer_in_two_groups(right):
    model, optimizer = small()
    step(model, optimizer)
    rest = model[:2] if right else model
    step(model, torch.optim.SGD([{"params": rest.parameters()}, {"params": model[2].parameters()}], lr=0.1))


QUIET = {
    criterion_not_emptied: ("GP108", "wrong"),
    one_part_emptied_less_often: ("GP108", "unusual"),
    closure_of_an_own_optimizer: ("GP101", "wrong"),
    body_without_a_graph: ("GP843", "wrong"),
    rate_as_an_attribute: ("GP833", "wrong"),
    rate_in_the_defaults: ("GP833", "wrong"),
    warm_up_in_integers: ("GP834", "unusual"),
    schedule_of_the_optimizer_before: ("GP835", "wrong"),
    schedule_of_one_head: ("GP835", "unusual"),
    schedule_at_the_beginning: ("GP811", "unusual"),
    schedule_every_epoch: ("GP815", "unusual"),
    mode_of_a_functional_dropout: ("GP602", "wrong"),
    scores_of_some_nodes: ("GP422", "unusual"),
    padding_predicted: ("GP412", "unusual"),
    rounded_without_an_estimate: ("GP809", "unusual"),
    balance_as_a_tensor: ("GP508", "unusual"),
    parameters_in_a_list: ("GP504", "wrong"),
    penalty_without_a_graph: ("GP708", "unusual"),
    one_layer_in_two_groups: ("GP914", "wrong"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""


def noted_rate():
    """Keep the first rate as an attribute, for a schedule of one's own."""
    model, optimizer = small()
    optimizer.lr = 0.1
    for index in range(STEPS):
        optimizer.param_groups[0]["lr"] = optimizer.lr * 0.9**index
        step(model, optimizer)


def idle_optimizer_for_a_schedule():
    """Write the weights by hand, with the rates of an optimizer that holds nothing of the model."""
    model, _ = small()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    schedule = ExponentialLR(optimizer, 0.9)
    for _ in range(STEPS):
        gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= schedule.get_last_lr()[0] * g
        optimizer.step()
        schedule.step()


def sampled_from_an_energy():
    """Train an energy on samples that follow its gradient, which needs no graph."""
    energy = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(energy.parameters(), lr=0.1)
    for _ in range(STEPS):
        x = torch.randn(12, 4)
        for _ in range(3):
            x = x.detach().requires_grad_()
            x = x - 0.1 * torch.autograd.grad(energy(x).sum(), x)[0] + 0.01 * torch.randn_like(x)
        step(energy, optimizer, lambda e, x=x: e(X).mean() - e(x.detach()).mean())


def perturbed_once():
    """Attack a classifier by the gradient of its loss, once a step."""
    model, optimizer = small()
    for _ in range(STEPS):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(model, x), x)
        step(model, optimizer, lambda m, x=x, slope=slope: loss_of(m, (x + 0.1 * slope.sign()).detach()))


def learned_perturbation():
    """Keep a perturbation in the model, and write it by hand."""
    model = Weighted(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(model, optimizer, lambda m: F.cross_entropy(m.inner(X + m.balance.sum()), Y))
        with torch.no_grad():
            model.balance += 0.1 * model.balance.grad.sign()
            model.balance.grad.zero_()


def importance_of_a_mask():
    """Collect the gradients of a mask of ones while the model trains."""
    model = Weighted(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    importance = torch.zeros(2)
    for _ in range(STEPS):
        step(model, optimizer, lambda m: F.cross_entropy(m.inner(X) * (1 + m.balance).prod(), Y))
        importance += model.balance.grad.abs()
        model.balance.grad = None


def padding_masked():
    """Mask the losses of padding by hand."""

    def masked(logits, targets):
        each = F.cross_entropy(logits, targets, reduction="none")
        return each[targets != 0].mean()

    predicted(0, masked)


def padding_without_weight():
    """Give the class of padding no weight."""
    weight = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
    predicted(0, lambda logits, targets: F.cross_entropy(logits, targets, weight=weight))


def padding_index_that_is_no_padding():
    """Name a padding_idx which the sequences hold here and there."""
    predicted(3, F.cross_entropy)


def warmed_up_from_zero():
    """Begin at a rate of zero, and set the first rate of each step before it."""
    model, optimizer = small()
    schedule = LambdaLR(optimizer, lambda index: index / STEPS)
    for _ in range(STEPS):
        schedule.step()
        step(model, optimizer)


def asks_for_its_mode_in_a_part():
    """Keep a copy that asks for its mode in evaluation, beside a model that trains."""
    model, teacher = Dropped(), Dropped().eval()
    teacher.requires_grad_(False)
    both = nn.ModuleList([model, teacher])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        both.train()
        teacher.eval()
        step(model, optimizer, lambda m: F.mse_loss(m(X), teacher(X)))


def low_rank_adapter():
    """Begin with a factor of zeros, so the other one has no gradient in the first step."""
    down, up = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(3, 2))
    base = copy.deepcopy(small()[0][0]).requires_grad_(False)
    head = nn.Linear(8, 3)
    optimizer = torch.optim.SGD([down, up, *head.parameters()], lr=0.1)
    for _ in range(STEPS):
        step(None, optimizer, lambda _: F.cross_entropy(head(base(X)) + X @ down.T @ up.T, Y))


def widened_on_the_way():
    """Go on in double precision: weights and moments are the same numbers in other bits."""
    model, x = small()[0], X
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for at in range(2 * STEPS):
        if at == STEPS:
            model.double()
            x = x.double()
            for state in optimizer.state.values():
                state.update({name: kept.double() for name, kept in state.items() if isinstance(kept, torch.Tensor)})
        optimizer.zero_grad()
        F.cross_entropy(model(x), Y).backward()
        optimizer.step()


def parameter_without_elements():
    """Hold a parameter of no rows, as a model without optional embeddings does."""
    model, rows = small()[0], nn.Parameter(torch.empty(0, 3))
    optimizer = torch.optim.SGD([*model.parameters(), rows], lr=0.1)
    for _ in range(STEPS):
        step(model, optimizer, lambda m: F.cross_entropy(torch.cat([m(X), rows]), Y))


QUIET_METHODS = [
    noted_rate,
    idle_optimizer_for_a_schedule,
    sampled_from_an_energy,
    perturbed_once,
    learned_perturbation,
    importance_of_a_mask,
    padding_masked,
    padding_without_weight,
    padding_index_that_is_no_padding,
    warmed_up_from_zero,
    asks_for_its_mode_in_a_part,
    low_rank_adapter,
    widened_on_the_way,
    parameter_without_elements,
]
"""Right loops that look like one of these bugs. Nothing is said of them but what they do."""
