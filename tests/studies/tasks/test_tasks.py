import math
import sys
from copy import deepcopy

import pytest
import torch

from gradparity.errors import UserError
from gradparity.parity.batch import PADDING
from gradparity.studies.tasks import (
    TASKS,
    Examples,
    count,
    digits,
    held_out_metric,
    move_examples,
    shuffled,
    summed_loss,
)
from gradparity.studies.tasks.text import ALPHABET, CONTEXT, CharTransformer
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import OptimizerConfig
from gradparity.training import train_step
from small import small_config, small_task

NAMES = pytest.mark.parametrize("name", sorted(TASKS))


@NAMES
def test_the_held_out_split_shares_no_example_with_training(name):
    task = TASKS[name]()
    trained, held_out = (
        {bytes(x.numpy()) + bytes(y.numpy()) for x, y in zip(*split, strict=True)}
        for split in (task.train, task.held_out)
    )
    assert len(held_out) > 300
    assert not trained & held_out


def test_the_digits_are_all_there():
    task = TASKS["digits_mlp"]()
    assert len(task.train.inputs) + len(task.held_out.inputs) == 1797
    assert task.train.inputs.shape[1:] == (1, 8, 8)
    assert (task.train.inputs.min(), task.train.inputs.max()) == (0, 1)
    assert set(task.held_out.targets.tolist()) == set(range(10))


def test_the_text_can_be_read_and_every_target_is_the_next_character():
    examples = TASKS["transformer"]().train
    text = "".join(ALPHABET[i] for i in examples.inputs[:50].flatten().tolist())
    assert text.startswith("\n")
    assert " the " in text
    assert " Rabbit" in text
    for inputs, targets in zip(*examples, strict=True):
        length = int((targets != PADDING).sum())
        assert 1 <= length <= CONTEXT
        assert torch.equal(inputs[1:length], targets[: length - 1])
        assert (targets[length:] == PADDING).all()


def test_padding_makes_token_counts_differ():
    counts = [count(b) for b in shuffled(TASKS["transformer"]().train, 8, torch.Generator().manual_seed(0))]
    assert max(counts) > 1.3 * min(counts[:-1])


@NAMES
def test_the_summed_loss_is_the_sum_over_everything_that_counts(name):
    task = small_task(name)
    model = task.build().eval()
    batch = Examples(*(part[:6] for part in task.train))
    log_probabilities = model(batch.inputs).flatten(0, -2).log_softmax(-1)
    targets = batch.targets.flatten()
    by_hand = sum(-log_probabilities[i, t] for i, t in enumerate(targets) if t != PADDING)
    assert summed_loss(model, batch).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert count(batch) == sum(int(t != PADDING) for t in targets)


@NAMES
def test_a_model_that_knows_nothing_guesses_among_all_classes(name):
    task = small_task(name)
    batch = Examples(*(part[:26] for part in task.train))
    classes = len(ALPHABET) if task.metric_name == "perplexity" else 10
    assert summed_loss(task.build(), batch).item() / count(batch) == pytest.approx(math.log(classes), rel=0.2)


@pytest.mark.parametrize(
    ("name", "lr", "steps", "size", "reached"),
    [
        ("digits_mlp", 0.01, 60, 32, 0.9),
        ("digits_cnn", 0.01, 40, 32, 0.95),
        ("transformer", 0.01, 40, 16, 30),
        ("gru", 0.01, 60, 64, 30),
        ("lstm", 0.01, 60, 64, 30),
        ("branches", 0.01, 60, 32, 0.8),
        ("additive", 0.01, 60, 32, 0.8),
        ("matrices", 0.01, 60, 32, 0.8),
        ("checkpointed", 0.01, 60, 32, 0.9),
        ("channels_last", 0.01, 60, 32, 0.9),
        ("penalty", 0.01, 60, 32, 0.8),
    ],
)
def test_every_task_visibly_learns(name, lr, steps, size, reached):
    task = TASKS[name]()
    config = small_config(task=name, microbatch_size=size, steps=steps, optimizer=OptimizerConfig(lr=lr))
    run = build.lane(config, task, "manual").run
    before = held_out_metric(run.model, task, task.held_out)
    for window in build.windows(config, task):
        list(train_step(run, window))
    after = held_out_metric(run.model, task, task.held_out)
    assert (before > 90 and after < reached) if task.metric_name == "perplexity" else (before < 0.2 and after > reached)


@NAMES
def test_evaluation_changes_nothing(name):
    task = small_task(name)
    model = task.build()
    list(model.modules())[-1].eval()
    modes = [m.training for m in model.modules()]
    before = deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    first = held_out_metric(model, task, task.held_out)
    assert held_out_metric(model, task, task.held_out) == first
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_an_epoch_has_every_example_once_in_its_own_order():
    examples = Examples(torch.arange(10), torch.arange(10))
    epochs = [list(shuffled(examples, 4, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
    orders = [torch.cat([b.inputs for b in batches]).tolist() for batches in epochs]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(10))
    assert [len(b.inputs) for b in epochs[0]] == [4, 4, 2]


def test_indices_keep_their_dtype_and_images_take_the_one_of_the_parameters():
    assert move_examples(small_task("transformer").train, "cpu", torch.float64).inputs.dtype == torch.long
    assert move_examples(small_task("digits_cnn").train, "cpu", torch.float64).inputs.dtype == torch.float64


def test_the_transformer_has_dropout_tied_weights_and_padding():
    model = CharTransformer()
    names = dict(model.named_parameters())
    assert model.head.weight is model.token.weight
    assert "head.weight" not in names
    loss = model(torch.zeros(2, CONTEXT, dtype=torch.long)).sum()
    a, b = torch.autograd.grad(loss, (names["position"], names["position_correction"]))
    assert a is b


def test_the_transformer_does_not_look_ahead():
    model = CharTransformer().eval()
    tokens = torch.randint(0, len(ALPHABET), (1, CONTEXT))
    changed = tokens.clone()
    changed[0, 40] = (changed[0, 40] + 1) % len(ALPHABET)
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:40], after[:40])
    assert not torch.equal(before[40], after[40])


def test_without_scikit_learn_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        UserError, match=r"^the images come with scikit-learn: pip install 'gradparity\[experiments\]'$"
    ):
        digits._load()
