"""Names are found once, and again after each kind of change; what has not changed is the same object."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from gradparity.parity.live_state import LiveState
from gradparity.parity.model_tree import ModelTree
from gradparity.parity.optimizer_names import OptimizerNames
from gradparity.parity.other_model_state import extras, modes
from gradparity.parity.state import Part, aliases, members, moments, name_by_tensor, trained
from gradparity.training import Moment, Phase
from small import small_config, small_lanes


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ModuleDict({"a": nn.Linear(3, 3)}))


def deleted_and_added(m):
    del m[0].in_features
    m[0].kept = torch.ones(1)


def renamed(m):
    m[2]["b"] = m[2].pop("a")


def to_buffer(m):
    weight = m[0].weight
    del m[0].weight
    m[0].register_buffer("weight", weight)


def last_parameter_to_first_buffer(m):
    """The names and the tensors of the module are the same, in the same order."""
    bias = m[0].bias
    del m[0].bias
    m[0].register_buffer("bias", bias)


def reordered(m):
    m[0]._parameters["weight"] = m[0]._parameters.pop("weight")


CHANGES = {
    "a parameter replaced": lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.detach().clone())),
    "a parameter added": lambda m: m[0].register_parameter("scale", nn.Parameter(torch.ones(1))),
    "a parameter deleted": lambda m: delattr(m[0], "bias"),
    "a parameter set to None": lambda m: setattr(m[0], "bias", None),
    "a parameter tied to another": lambda m: setattr(m[2]["a"], "bias", m[0].bias),
    "a parameter made a buffer": to_buffer,
    "the last parameter made the first buffer": last_parameter_to_first_buffer,
    "parameters in another order": reordered,
    "a buffer registered": lambda m: m[0].register_buffer("late", torch.ones(1)),
    "a buffer replaced": lambda m: setattr(m[1], "running_mean", torch.ones(3)),
    "a buffer set to None": lambda m: setattr(m[1], "running_mean", None),
    "a module added": lambda m: m.append(nn.Linear(3, 3)),
    "a module replaced": lambda m: m.__setitem__(0, nn.Linear(2, 3)),
    "a module deleted": lambda m: m.__delitem__(2),
    "a module renamed": renamed,
    "the tables of a module replaced": lambda m: setattr(m[0], "_parameters", {"weight": m[0].bias}),
}


def contents(tree):
    return [list(each.items()) for each in (tree.modules, tree.parameters, tree.buffers)]


def same(one, other):
    """Return whether both hold the same names, and under each the same object."""
    return [[(k, id(v)) for k, v in each] for each in one] == [[(k, id(v)) for k, v in each] for each in other]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_model_is_seen(change):
    m = model()
    tree = ModelTree(m)
    before = contents(tree)
    CHANGES[change](m)
    tree.look_again()
    assert same(contents(tree), contents(ModelTree(m)))
    assert not same(contents(tree), before)


def test_a_model_that_has_not_changed_keeps_its_dicts():
    m = model()
    tree = ModelTree(m)
    before = tree.modules, tree.parameters, tree.buffers
    m.eval()
    m[0].weight.data.add_(1)
    m[0].weight.grad = torch.ones_like(m[0].weight)
    tree.look_again()
    assert all(one is other for one, other in zip(before, (tree.modules, tree.parameters, tree.buffers), strict=True))


class Prefixed(nn.Linear):
    prefix = "one."

    def named_parameters(self, *args, **kwargs):
        for name, p in super().named_parameters(*args, **kwargs):
            yield self.prefix + name, p


def test_a_model_that_names_its_parameters_itself_is_asked_each_time():
    m = Prefixed(1, 1)
    tree = ModelTree(m)
    m.prefix = "two."
    tree.look_again()
    assert list(tree.parameters) == ["two.weight", "two.bias"]


ATTRIBUTES = {
    "a new tensor": (lambda m: setattr(m[0], "kept", torch.ones(1)), ["0.kept"]),
    "a tensor in the place of a number": (lambda m: setattr(m[1], "eps", torch.ones(1)), ["1.eps"]),
    "one attribute for another": (deleted_and_added, ["0.kept"]),
    "a list of tensors": (lambda m: setattr(m, "kept", [torch.ones(1)]), ["kept[0]"]),
    "a tuple of tensors": (lambda m: setattr(m, "kept", (1, torch.ones(1))), ["kept[1]"]),
    "a tuple of numbers": (lambda m: setattr(m, "kept", (1, 2)), []),
    "a number": (lambda m: setattr(m[0], "kept", 2), []),
    "a tensor in a new module": (lambda m: m.append(nn.Module()) and setattr(m[3], "kept", torch.ones(1)), ["3.kept"]),
}


@pytest.mark.parametrize("change", ATTRIBUTES)
def test_tensors_that_become_attributes_are_seen(change):
    m = model()
    tree = ModelTree(m)
    assert extras(tree) == {}
    set_it, names = ATTRIBUTES[change]
    set_it(m)
    tree.look_again()
    assert list(extras(tree)) == names
    assert modes(tree, tree.parameters) == {}


# The state of an optimizer.


def trained_model():
    m = nn.Linear(2, 2)
    optimizer = AdamW(m.parameters())
    m(torch.ones(2)).sum().backward()
    optimizer.step()
    return m, optimizer


STATES = {
    "nothing": lambda o, p: None,
    "a new entry": lambda o, p: o.state[p].update(more=torch.ones(1)),
    "an entry that is a number": lambda o, p: o.state[p].update(step=3),
    "an entry in another order": lambda o, p: o.state[p].update(step=o.state[p].pop("step")),
    "a renamed entry": lambda o, p: o.state[p].update(other=o.state[p].pop("exp_avg_sq")),
    "an entry moved to the next parameter": lambda o, p: [*o.state.values()][1].update(a=o.state[p].pop("exp_avg_sq")),
    "a dict inside": lambda o, p: o.state[p].update(exp_avg={"a": torch.ones(1), "b": 2.0}),
    "no state": lambda o, p: o.state.clear(),
    "the state of one parameter less": lambda o, p: o.state.pop(p),
    "parameters in another order": lambda o, p: o.state.update({p: o.state.pop(p)}),
    "a counter of its own": lambda o, p: o.state.update(count=2.0),
    "a state of another parameter": lambda o, p: o.state.update({nn.Parameter(torch.ones(1)): o.state.pop(p)}),
    "loaded": lambda o, p: o.load_state_dict(o.state_dict()),
}


@pytest.mark.parametrize("change", STATES)
def test_the_state_has_the_names_that_it_has_without_a_memory(change):
    m, optimizer = trained_model()
    names, name_of = OptimizerNames(optimizer), name_by_tensor(trained(m, optimizer))
    for _ in range(2):
        assert same([names.moments(name_of).items()], [dict(moments(name_of, optimizer)).items()])
    STATES[change](optimizer, m.weight)
    for _ in range(2):
        found, expected = names.moments(name_of), dict(moments(name_of, optimizer))
        assert list(found) == list(expected)
        assert all(one is other or one == other for one, other in zip(found.values(), expected.values(), strict=True))
    other_names = {p: f"other {name}" for p, name in name_of.items()}
    assert list(names.moments(other_names)) == list(dict(moments(other_names, optimizer)))


# A whole run.


def test_a_parameter_that_moves_to_another_group_is_seen():
    run = small_lanes(small_config(task="digits_mlp"))[0].run
    state = LiveState(run, {}, {})
    before = state.at(Moment(Phase.STEPPED))[Part.OPTIMIZER]
    first, second = run.optimizer.param_groups
    second["params"].append(first["params"].pop())
    after = state.at(Moment(Phase.STEPPED))[Part.OPTIMIZER]
    assert [after[f"group {i}.params"] for i in range(2)] == members(
        name_by_tensor(trained(run.model, run.optimizer)), run.optimizer
    )
    assert after["group 0.params"] != before["group 0.params"]


def test_a_parameter_that_joins_the_optimizer_is_seen():
    m, alpha = nn.Linear(2, 2), torch.zeros(1, requires_grad=True)
    optimizer = SGD(m.parameters(), lr=0.1)
    run = small_lanes(small_config(task="digits_mlp"))[0].run
    run = type(run)(m, run.loss, optimizer, run.scheduler, run.scaler, run.autocast, run.clip, run.route)
    state = LiveState(run, {}, {})
    assert list(state.at(Moment(Phase.CLIPPED))[Part.GRADIENTS]) == ["weight", "bias"]
    optimizer.add_param_group({"params": [alpha]})
    assert list(state.at(Moment(Phase.CLIPPED))[Part.GRADIENTS])[2:] == ["outside the model: group 1[0]"]


# The memory that tensors share.


def gradient_gone(m):
    m[0].weight.grad = None


def gradients_shared(m):
    m[0].bias.grad = m[1].weight.grad


def another_buffer(m):
    m.register_buffer("late", torch.ones(1))


def another_parameter(m):
    m.append(nn.Linear(3, 3))


@pytest.mark.parametrize("change", [gradient_gone, gradients_shared, another_buffer, another_parameter, renamed])
def test_every_change_of_shared_memory_and_of_its_names_is_seen(change):
    m, run = model(), small_lanes(small_config(task="digits_mlp"))[0].run
    state = LiveState(replace(run, model=m, optimizer=SGD(m.parameters())), {}, {})

    def found():
        return dict(state.at(Moment(Phase.ACCUMULATED))[Part.ALIASING])

    def expected():
        return aliases(dict(m.named_parameters()), dict(m.named_buffers()))

    for p in m.parameters():
        p.grad = torch.ones_like(p)
    assert found() == found() == expected()
    before = found()
    change(m)
    assert found() == found() == expected() != before
