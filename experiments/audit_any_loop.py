"""Which line of a training loop is wrong?

You will see six loops as people have published them, run as they are: each has one mistake, found with its line.
Then each loop runs with its repair, about which nothing is said.
"""

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.studies import experiment
from gradparity.studies.audit_any_loop.outcome import audited_loop
from gradparity.studies.audit_any_loop.result import audits_result
from gradparity.studies.experiment import Finished
from gradparity.tensorboard import new_folder


def made(dropout: float = 0.0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 5))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def batches(count: int, padded: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of 12 tokens; if ``padded``, the last ones of some have no target, which -100 stands for."""
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        x, y = torch.randn(12, 8, generator=generator), torch.randint(5, (12,), generator=generator)
        if padded:
            y[12 - 3 * (i % 4) :] = -100
        yield x, y


def emptied_inside(repaired: bool) -> None:
    """The gradients are emptied before every microbatch, so that only the last one of a window counts."""
    model, optimizer = made()
    for i, (x, y) in enumerate(batches(24)):
        if not repaired or i % 4 == 0:
            optimizer.zero_grad()
        (cross_entropy(model(x), y) / 4).backward()
        if (i + 1) % 4 == 0:
            optimizer.step()


def clipped_too_early(repaired: bool) -> None:
    """The gradients are clipped while they still carry the loss scale, so that the update nearly vanishes."""
    model, optimizer = made()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for x, y in batches(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if repaired:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def mean_of_means(repaired: bool) -> None:
    """Each microbatch is a mean of its own, so that a token of a short one weighs more than one of a long one."""
    model, optimizer = made()
    microbatches = list(batches(24, padded=True))
    for start in range(0, 24, 4):
        window = microbatches[start : start + 4]
        tokens = sum(int((y != -100).sum()) for _, y in window)
        for x, y in window:
            loss = cross_entropy(model(x), y, reduction="sum") / tokens if repaired else cross_entropy(model(x), y) / 4
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def short_last_window(repaired: bool) -> None:
    """The last window of an epoch has two microbatches, and is divided by four as all others."""
    model, optimizer = made()
    for _ in range(2):
        for i, (x, y) in enumerate(batches(10)):
            length = min(4, 10 - i // 4 * 4) if repaired else 4
            (cross_entropy(model(x), y) / length).backward()
            if (i + 1) % 4 == 0 or i + 1 == 10:
                optimizer.step()
                optimizer.zero_grad()


def never_back_to_training(repaired: bool) -> None:
    """After the first validation the model stays in evaluation mode, so that dropout is off for the rest."""
    model, optimizer = made(dropout=0.2)
    for _ in range(3):
        if repaired:
            model.train()
        for x, y in batches(4):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, y in batches(2):
                cross_entropy(model(x), y)


def past_the_scaler(repaired: bool) -> None:
    """The loss is scaled, and the optimizer steps on gradients that nobody has divided by the scale."""
    model, optimizer = made()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for x, y in batches(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if repaired:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()


LOOPS: dict[Callable[[bool], None], str] = {
    emptied_inside: "GP103",
    clipped_too_early: "GP201",
    mean_of_means: "GP401",
    short_last_window: "GP402",
    never_back_to_training: "GP602",
    past_the_scaler: "GP202",
}
"""For each loop, the rule that its mistake breaks."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("audit_any_loop", __doc__)
    add_choice(parser, "--only", "; ".join(map(named, LOOPS)))
    return experiment.run("audit_any_loop", partial(parser.parse_args, arguments), audits)


def named(loop: Callable[[bool], None]) -> str:
    return loop.__name__.replace("_", "-")


def audits(given: Namespace, console: Console) -> Finished:
    chosen = choose("--only", given.only, map(named, LOOPS))
    folder = new_folder(given.output / "audit_any_loop")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PyTorch warns about some of the mistakes
    loops = [audited_loop(loop, code) for loop, code in LOOPS.items() if named(loop) in chosen]
    console.print("The same for a script: [bold]gradparity audit train.py[/]", soft_wrap=True)
    return Finished(audits_result(loops), folder, "Text, Images and Time Series")


if __name__ == "__main__":
    raise SystemExit(main())
