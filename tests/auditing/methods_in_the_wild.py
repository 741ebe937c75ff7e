"""Right loops of more methods, as people write them: nothing may be called wrong."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from audited_loops import STEPS, X, Y, loss_of, small


def meta_learning():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for second_order in (True, False):
            fast = dict(model.named_parameters())
            for _ in range(2):
                loss = F.cross_entropy(functional_call(model, fast, X), Y)
                slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=second_order)
                fast = {name: p - 0.1 * g for (name, p), g in zip(fast.items(), slopes, strict=True)}
            (F.cross_entropy(functional_call(model, fast, X), Y) / 2).backward()
        optimizer.step()


def reptile():
    model = nn.Linear(4, 3)
    for _ in range(3):
        before = copy.deepcopy(model.state_dict())
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            inner.zero_grad()
            loss_of(model).backward()
            inner.step()
        after = model.state_dict()
        model.load_state_dict({name: torch.lerp(before[name], after[name], 0.5) for name in before})


def balanced_gradient_norms():
    body, heads, weights = (
        nn.Linear(4, 8),
        nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 1)]),
        nn.Parameter(torch.ones(2)),
    )
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=0.01)
    of_weights = torch.optim.Adam([weights], lr=0.01)
    for _ in range(STEPS):
        hidden = body(X).tanh()
        losses = torch.stack([F.mse_loss(head(hidden), X[:, i : i + 1]) for i, head in enumerate(heads)])
        optimizer.zero_grad()
        (weights.detach() * losses).sum().backward(retain_graph=True)
        norms = [
            torch.autograd.grad(w * loss, body.weight, create_graph=True)[0].norm()
            for w, loss in zip(weights, losses, strict=True)
        ]
        weights.grad = torch.autograd.grad((torch.stack(norms) - norms[0].detach()).abs().sum(), weights)[0]
        of_weights.step()
        optimizer.step()


def cycle_of_two_generators():
    one, other, critic = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
    of_generators = torch.optim.Adam(itertools.chain(one.parameters(), other.parameters()), lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(STEPS):
        fake = one(X)
        critic.requires_grad_(False)
        of_generators.zero_grad()
        (critic(fake).square().mean() + F.l1_loss(other(fake), X)).backward()
        of_generators.step()
        critic.requires_grad_(True)
        of_critic.zero_grad()
        (critic(fake.detach()).square().mean() + (critic(X) - 1).square().mean()).backward()
        of_critic.step()


def lazy_regularization_of_a_critic():
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    for step in range(2 * STEPS):
        critic.zero_grad()
        F.softplus(critic(torch.randn(8, 4))).mean().backward()
        optimizer.step()
        if step % 4 == 0:
            x = X.clone().requires_grad_()
            (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            critic.zero_grad()
            slope.square().sum().backward()
            optimizer.step()


def encoder_of_two_tasks():
    encoder, first, second = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (encoder, first, second)]
    for _ in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        hidden = encoder(X).relu()
        F.cross_entropy(first(hidden), Y).backward(retain_graph=True)
        F.mse_loss(second(hidden), X[:, :1]).backward()
        for optimizer in optimizers:
            optimizer.step()


def image_through_a_network():
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    image = X.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(network(image), torch.zeros(12, 8))
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)


def prompt_for_a_frozen_network():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False).eval()
    prompt = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([prompt], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(network(X + prompt), Y).backward()
        optimizer.step()


def adversarial_examples():
    model, optimizer = small()
    for _ in range(STEPS):
        shift = torch.zeros_like(X, requires_grad=True)
        for _ in range(2):
            loss_of(model, X + shift).backward()
            shift.data = (shift + 0.1 * shift.grad.sign()).clamp(-0.3, 0.3)
            shift.grad.zero_()
        optimizer.zero_grad()
        loss_of(model, X + shift.detach()).backward()
        optimizer.step()


def clipped_with_foreach():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        gradients = [p.grad for p in model.parameters()]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (0.1 / (norm + 1e-6)).clamp(max=1.0))
        optimizer.step()


def private_by_vmap():
    model, optimizer = small()

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    for _ in range(STEPS):
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, X, Y)
        optimizer.zero_grad()
        for name, p in model.named_parameters():
            p.grad = each[name].mean(0) + 0.01 * torch.randn_like(p)
        optimizer.step()


def weights_swapped_for_an_evaluation():
    model, optimizer = small()
    average = [p.detach().clone() for p in model.parameters()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        with torch.no_grad():
            stored = [p.clone() for p in model.parameters()]
            for p, a in zip(model.parameters(), average, strict=True):
                p.copy_(a.lerp_(p, 0.1))
            loss_of(model)
            for p, s in zip(model.parameters(), stored, strict=True):
                p.copy_(s)


def unfrozen_and_added():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for step in range(STEPS):
        if step == 3:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def folds():
    for _ in range(3):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3))
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for _ in range(4):
            model.train()
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            schedule.step()
        model.eval()


def reversed_gradients():
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            return -g

    body, classes, domain = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([p for m in (body, classes, domain) for p in m.parameters()], lr=0.1)
    for _ in range(STEPS):
        hidden = body(X).relu()
        other = F.binary_cross_entropy_with_logits(domain(Reverse.apply(hidden)), (Y > 0).float()[:, None])
        optimizer.zero_grad()
        (F.cross_entropy(classes(hidden), Y) + other).backward()
        optimizer.step()


def pairwise_errors():
    """Quantile regression compares each prediction with each target on purpose."""
    model = nn.Linear(4, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        predicted, target = model(X)[:, :, None].expand(-1, -1, 5), torch.randn(12, 1, 5).expand(-1, 5, -1)
        optimizer.zero_grad()
        F.smooth_l1_loss(predicted, target, reduction="none").mean(2).sum(1).mean().backward()
        optimizer.step()


def frozen_until_later():
    """The second optimizer's gradients are computed and emptied until its turn comes."""
    body, head = nn.Linear(4, 8), nn.Linear(8, 3)
    of_body, of_head = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (body, head))
    for step in range(2 * STEPS):
        of_body.zero_grad()
        of_head.zero_grad()
        F.cross_entropy(head(body(X)), Y).backward()
        of_head.step()
        if step >= STEPS:
            of_body.step()


def three_optimizers_of_two_networks():
    """The third one holds both networks, as in InfoGAN; parts of its gradients are emptied by the other two."""
    generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    critic = nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), "real": nn.Linear(8, 1), "code": nn.Linear(8, 2)}
    )
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    of_both = torch.optim.Adam(itertools.chain(generator.parameters(), critic.parameters()), lr=0.01)
    for _ in range(STEPS):
        z = torch.randn(12, 2)
        of_generator.zero_grad()
        fake = generator(z)
        F.softplus(-critic["real"](critic["body"](fake))).mean().backward()
        of_generator.step()
        of_critic.zero_grad()
        shown = [critic["real"](critic["body"](x)) for x in (X, fake.detach())]
        (F.softplus(-shown[0]).mean() + F.softplus(shown[1]).mean()).backward()
        of_critic.step()
        of_both.zero_grad()
        F.mse_loss(critic["code"](critic["body"](generator(z))), z).backward()
        of_both.step()


def heads_in_turn():
    """Two optimizers share an encoder, and each has a head whose gradients wait for its turn."""
    encoder, heads = nn.Linear(4, 8), nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)])
    optimizers = [torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01) for head in heads]
    for step in range(2 * STEPS):
        optimizers[step % 2].zero_grad()
        F.cross_entropy(heads[step % 2](encoder(X).relu()), Y).backward()
        optimizers[step % 2].step()


def curvature_between_steps():
    """An optimizer that learns something between its steps, as Sophia does."""

    class Curved(torch.optim.SGD):
        def look(self):
            for p in self.param_groups[0]["params"]:
                self.state[p]["square"] = p.grad.square()

    model, _ = small()
    optimizer = Curved(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss_of(model, -X).backward()
        optimizer.look()
        optimizer.zero_grad()


def without_a_backward():
    """Evolution strategies: perturbed weights, and gradients from the losses alone."""
    model, optimizer = small()
    for _ in range(STEPS):
        with torch.no_grad():
            for p in model.parameters():
                noise = torch.randn_like(p)
                p.add_(0.1 * noise)
                p.grad = loss_of(model) * noise
                p.sub_(0.1 * noise)
        optimizer.step()


def best_weights_restored():
    model, optimizer = small()
    best = copy.deepcopy(model.state_dict())
    for step in range(2 * STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        if step % 4 == 3:
            model.load_state_dict(best)


def gradients_divided_by_hand():
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            loss_of(model, x, y).backward()
        for p in model.parameters():
            p.grad.div_(3)
        optimizer.step()


def tasks_with_heads_of_their_own():
    body, heads = nn.Linear(4, 8), nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)])
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for head in heads:
            F.cross_entropy(head(body(X).relu()), Y).backward()
        optimizer.step()


def every_module_evaluated_by_itself():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model.train()
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        model.apply(lambda module: module.eval())


def groups_clipped_one_by_one():
    """One of the groups is empty, as the one without decay may be."""
    model, _ = small()
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": []}], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()


def pairs_in_both_directions():
    one, other = nn.Linear(4, 8), nn.Linear(4, 8)
    optimizer = torch.optim.Adam([*one.parameters(), *other.parameters()], lr=0.01)
    for _ in range(STEPS):
        scores, same = one(X) @ other(X).T, torch.arange(12)
        optimizer.zero_grad()
        (F.nll_loss(scores.log_softmax(1), same) + F.nll_loss(scores.log_softmax(0), same)).backward()
        optimizer.step()


METHODS = [value for value in list(vars().values()) if getattr(value, "__module__", "") == __name__]
