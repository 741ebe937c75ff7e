"""All that a training consists of has a name and a value, and what cannot be compared is named, never called the same."""

import dataclasses
import enum
import random
from collections import deque
from decimal import Decimal
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from gradparity.parity.compare import SharedMemoryError, compare
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.model_tree import ModelTree
from gradparity.parity.state import (
    Part,
    Unseen,
    aliases,
    extras,
    flatten,
    modes,
    moments,
    name_by_tensor,
    trained,
)


def compared(part, a, b):
    return compare(part, dict(a), dict(b))


# Values of any type.


@dataclasses.dataclass
class Plan:
    rate: float
    kind: object = None


class Way(enum.Enum):
    UP = 1
    DOWN = 2


def array(last):
    values = np.arange(5000.0)
    values[-2] = last  # where NumPy prints dots
    return values


def itself(value):
    made = {"value": value}
    made["again"] = made
    return made


ONE_OF_EACH = {
    "np.float32": (lambda: np.float32(0.1), lambda: np.float32(0.2)),
    "np.longdouble": (lambda: np.longdouble(1) / 3, lambda: np.longdouble(1) / 7),
    "complex": (lambda: 1 + 2j, lambda: 1 - 2j),
    "long array": (lambda: array(1.0), lambda: array(1.5)),
    "array of objects": (lambda: np.array([1, "a"], object), lambda: np.array([1, "b"], object)),
    "structured array": (lambda: np.array([(1, 2.0)], "i4,f8"), lambda: np.array([(1, 3.0)], "i4,f8")),
    "set": (lambda: {"b", "a", 1}, lambda: {"b", "c", 1}),
    "deque": (lambda: deque([1, 2]), lambda: deque([2, 1])),
    "dataclass": (lambda: Plan(0.1, [1]), lambda: Plan(0.1, [2])),
    "enum": (lambda: Way.UP, lambda: Way.DOWN),
    "dtype": (lambda: torch.float32, lambda: torch.float16),
    "device": (lambda: torch.device("cpu"), lambda: torch.device("meta")),
    "class": (lambda: SGD, lambda: AdamW),
    "built-in function": (lambda: torch.cos, lambda: torch.sin),
    "partial": (lambda: partial(max, 1), lambda: partial(max, 2)),
    "huge integer": (lambda: 10**5000, lambda: 10**5000 + 1),
    "bytes": (lambda: b"abc", lambda: b"abd"),
    "decimal": (lambda: Decimal("1.10"), lambda: Decimal("1.1")),
    "long list": (lambda: list(range(1000)), lambda: [*range(999), 7]),
    "keys of two types": (lambda: {1: "a", "1": "b"}, lambda: {1: "a", "1": "c"}),
    "a key with a dot": (lambda: {"a.b": 1, "a": {"b": 2}}, lambda: {"a.b": 1, "a": {"b": 3}}),
    "a dict in itself": (lambda: itself(1), lambda: itself(2)),
    "generator": (lambda: torch.Generator().manual_seed(1), lambda: torch.Generator().manual_seed(2)),
    "NumPy's generator": (lambda: np.random.default_rng(1), lambda: np.random.default_rng(2)),
}


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_hyperparameters_of_any_type_are_compared_by_value(case):
    make, other = ONE_OF_EACH[case]
    mismatches, _, unseen = compared(Part.OPTIMIZER, flatten("x", make()), flatten("x", make()))
    assert (mismatches, unseen) == ([], [])
    assert compared(Part.OPTIMIZER, flatten("x", make()), flatten("x", other()))[0]


class Nameless:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("make", [lambda: lambda x: x, Nameless, lambda: iter([1]), lambda: {Nameless(): 1}.keys()])
def test_a_value_that_cannot_be_compared_is_named_and_not_counted_as_identical(make):
    a, b = dict(flatten("x", make())), dict(flatten("x", make()))
    assert isinstance(a["x"], Unseen)
    assert "0x" not in str(a["x"])
    assert compare(Part.OPTIMIZER, a, b) == ([], None, ["x"])
    assert compare(Part.OPTIMIZER, a, a) == ([], None, []), "one object is the same as itself"
    assert compare(Part.OPTIMIZER, a, {"x": 1})[0][0].kind == Kind.VALUE


# Trained tensors outside the model.


def outside():
    model, criterion, alpha = nn.Linear(2, 1), nn.Linear(1, 1), torch.zeros(1, requires_grad=True)
    optimizer = AdamW([{"params": model.parameters()}, {"params": [*criterion.parameters(), alpha]}])
    for p in (*model.parameters(), *criterion.parameters(), alpha):
        p.grad = torch.ones_like(p)
    optimizer.step()
    return model, optimizer, alpha


def test_tensors_outside_the_model_have_names_and_state_of_their_own():
    model, optimizer, alpha = outside()
    parameters = trained(model, optimizer)
    assert list(parameters) == ["weight", "bias", *(f"outside the model: group 1[{i}]" for i in range(3))]
    assert parameters["outside the model: group 1[2]"] is alpha
    state = dict(moments(name_by_tensor(parameters), optimizer))
    assert sum(name.endswith(".exp_avg") for name in state) == 5


# Modes.


def test_flags_are_named_by_module_and_parameter():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    usual = modes(ModelTree(model), dict(model.named_parameters()))
    assert usual == {}
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = (model[0].weight * 1).detach().requires_grad_()
    mismatches, *_ = compare(Part.MODES, usual, modes(ModelTree(model), dict(model.named_parameters())))
    assert {(m.name, m.kind, m.reference, m.candidate) for m in mismatches} == {
        ("1.training", Kind.VALUE, "True", "False"),
        ("0.bias.requires_grad", Kind.VALUE, "True", "False"),
        ("0.weight.grad.requires_grad", Kind.VALUE, "False", "True"),
    }


# Extra state and plain attributes.


class Keeps(nn.Module):
    def __init__(self, value=0.0, extra=1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.plain, self.pair, self.extra = torch.full((2,), value), [torch.full((1,), value)], extra
        self.again, self.also_weight = self.plain, self.weight

    @property
    def explodes(self):
        raise AssertionError("a property was read")

    def get_extra_state(self):
        if self.extra is None:
            raise ValueError
        return {"calls": self.extra}


def test_plain_tensors_and_extra_state_are_compared_and_no_property_is_read():
    found = extras(ModelTree(nn.Sequential(Keeps())))
    assert list(found) == ["0.plain", "0.pair[0]", "0._extra_state.calls"]
    mismatches, *_ = compare(Part.BUFFERS, found, extras(ModelTree(nn.Sequential(Keeps(1.0, 2)))))
    assert [m.name for m in mismatches] == list(found)


def test_extra_state_that_raises_is_named_and_ends_nothing():
    assert extras(ModelTree(Keeps(extra=None)))["_extra_state"] == Unseen("extra state that raises ValueError")


# Memory.


def test_a_constant_that_both_runs_share_is_allowed_until_it_changes():
    constant, constants = torch.ones(3), {}
    a, b = {"mask": constant}, {"mask": constant}
    assert compare(Part.BUFFERS, a, b, constants=constants)[0] == []
    constant.data[0] = 2
    with pytest.raises(SharedMemoryError, match="buffers mask"):
        compare(Part.BUFFERS, a, b, constants=constants)
    with pytest.raises(SharedMemoryError):
        compare(Part.PARAMETERS, a, b, constants={})


def test_memory_that_overlaps_is_shared_and_empty_or_neighbouring_memory_is_not():
    whole = torch.arange(10.0)
    with pytest.raises(SharedMemoryError):
        compare(Part.PARAMETERS, {"w": whole[:6]}, {"w": whole[2:8]})
    for a, b in ((whole[:5], whole[5:]), (whole[:0], whole[:0]), (whole.view(5, 2)[:, 0], whole.view(5, 2)[:, 1])):
        assert isinstance(compare(Part.PARAMETERS, {"w": a}, {"w": b}).mismatches, list)


def test_interleaved_pairs_are_found_by_sorting_once(monkeypatch):
    """Each tensor is asked for its address a fixed number of times, however many pairs there are."""
    from gradparity.parity import aliasing

    asked = []
    monkeypatch.setattr(aliasing, "stretches", lambda t, ask=aliasing.stretches: asked.append(t) or ask(t))
    pairs = {f"{i}{half}": w[:, k] for i in range(500) for w in [torch.zeros(3, 2)] for k, half in enumerate("ab")}
    found = aliases(pairs, {})
    assert len(asked) == len(pairs)
    assert all(found[f"{i}b"] == f"memory of {i}a" for i in range(500))


def test_memory_is_shared_or_not_as_the_places_of_all_tensors_say():
    """The fast answer for tensors without gaps is that of the slow one, whatever lies beside, in or over what."""
    from gradparity.parity import aliasing

    drawn, answers = random.Random(0), set()
    for _ in range(300):
        memory, tensors, stretches = torch.zeros(40), {}, []
        for name in range(drawn.randrange(2, 5)):
            start, size, step = drawn.randrange(36), drawn.randrange(4), drawn.choice((1, 1, 5))
            tensors[str(name)] = some = memory[start::step][:size]
            stretches.append(set(range(start, start + step * (len(some) - 1) + 1)))
        apart = sum(map(len, stretches)) == len(set().union(*stretches))
        assert (list(aliasing.clusters(tensors)) == []) == apart
        answers.add((apart, all(t.is_contiguous() for t in tensors.values())))
    assert len(answers) == 4
