"""The place where a prediction ends, computed from the windows and the model before any training."""

from collections.abc import Callable, Iterator
from itertools import chain

from torch import Tensor, nn

from gradparity.parity.place_in_training import Place
from gradparity.studies import tasks
from gradparity.studies.routes_that_differ.parameter_uses import count_uses
from gradparity.studies.routes_that_differ.sqrt_rounding import kernel_rounds_otherwise, roots_are_exact
from gradparity.studies.tasks import Batch, Task
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config
from gradparity.training import PRECISIONS, Phase, Window


def nowhere(config: Config, task: Task) -> None:
    """Return ``None``: the prediction holds to the end."""


def no_power_of_two(config: Config, task: Task) -> Place | None:
    """Return the place of the first window whose count is not a power of two: dividing by it rounds."""
    return accumulated(config, task, lambda window: int(window.normalizer).bit_count() > 1)


def two_microbatches(config: Config, task: Task) -> Place | None:
    """Return the place of the first window with two microbatches or more."""
    return accumulated(config, task, lambda window: len(window.microbatches) > 1)


def three_microbatches(config: Config, task: Task) -> Place | None:
    """Return the place of the first window with three microbatches or more: the order of two terms does not matter."""
    return accumulated(config, task, lambda window: len(window.microbatches) > 2)


def used_twice(config: Config, task: Task) -> Place | None:
    """Return :func:`two_microbatches` if one forward uses some parameter more than once, else ``None``."""
    _, loss = next(chain.from_iterable(losses(config, task)))
    return two_microbatches(config, task) if max(count_uses(loss).values()) > 1 else None


def unused_at_first(config: Config, task: Task) -> Place | None:
    """Return the place of the first window whose first microbatch leaves some parameter unused."""
    for step, window in enumerate(losses(config, task)):
        model, loss = next(window)
        if unused_parameters(model, loss):
            return Place(step, 0, Phase.ACCUMULATED)
    return None


def unused(config: Config, task: Task) -> Place | None:
    """Return the end of the first step in which some parameter is used by no microbatch."""
    for step, window in enumerate(losses(config, task)):
        if set.intersection(*(unused_parameters(model, loss) for model, loss in window)):
            return Place(step, None, Phase.STEPPED)
    return None


def inexact_roots(config: Config, task: Task) -> Place | None:
    """Return the end of the first step if fused and for-loop AdamW differ on this machine, else ``None``.

    They differ if ``torch.sqrt`` is not correctly rounded, or if :func:`fused_rounding` finds a difference.
    """
    exact = roots_are_exact(PRECISIONS[config.precision].parameters)
    return fused_rounding(config, task) if exact else Place(0, None, Phase.STEPPED)


def fused_rounding(config: Config, task: Task) -> Place | None:
    """Return the end of the first step if the fused kernel rounds more than square roots differently, else ``None``."""
    otherwise = kernel_rounds_otherwise(PRECISIONS[config.precision].parameters)
    return Place(0, None, Phase.STEPPED) if otherwise else None


def end_of_step_of(place: Callable[[Config, Task], Place | None]) -> Callable[[Config, Task], Place | None]:
    """Return a function that gives the end of the step of ``place``, where the updated parameters are compared."""

    def end(config: Config, task: Task) -> Place | None:
        found = place(config, task)
        return found and Place(found.step, None, Phase.STEPPED)

    return end


def accumulated(config: Config, task: Task, which: Callable[[Window[Batch]], bool]) -> Place | None:
    """Return the place where the first window accepted by ``which`` has accumulated its gradients."""
    for step, window in enumerate(build.windows(config, task)):
        if which(window):
            return Place(step, len(window.microbatches) - 1, Phase.ACCUMULATED)
    return None


def losses(config: Config, task: Task) -> Iterator[Iterator[tuple[nn.Module, Tensor]]]:
    """Yield, for each window, an iterator over its microbatches' (model, loss with graph). The model is not trained."""
    model = task.build().to(PRECISIONS[config.precision].parameters)
    for window in build.windows(config, task):
        yield ((model, tasks.summed_loss(model, microbatch)) for microbatch in window.microbatches)


def unused_parameters(model: nn.Module, loss: Tensor) -> set[nn.Parameter]:
    """Return the parameters that ``loss`` does not depend on."""
    return {p for p in model.parameters() if p.requires_grad} - set(count_uses(loss))
