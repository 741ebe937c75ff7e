"""The claim whose code raises: a derivative of a derivative."""

import torch

from gradparity.studies.calculus_tour.known_functions import unstacked, vector
from gradparity.studies.claims.evidence import Evidence, judge
from gradparity.studies.claims.examples import batch, ending, error_message, largest_error


def second_derivative() -> Evidence:
    """The second derivative: `grad_xx, = torch.autograd.grad(grad_x, (x,), torch.ones_like(grad_x))`."""
    x, y = (column.detach().requires_grad_() for column in batch().unbind(dim=1))
    out = unstacked(vector)(x, y)
    ones = torch.ones_like(out)
    first, _ = torch.autograd.grad(out, (x, y), ones, retain_graph=True)
    refused = error_message(lambda: torch.autograd.grad(first, (x,), torch.ones_like(first)))

    graph, _ = torch.autograd.grad(out, (x, y), ones, create_graph=True)
    (second,) = torch.autograd.grad(graph, (x,), torch.ones_like(graph))
    by_hand = (2 - torch.sin(x + y**2)).detach()
    return Evidence(
        judge(holds=not refused),
        f"It {ending(refused)}: grad_x came without a graph. With create_graph=True in the "
        f"first call, the largest of {len(second):,} errors against the formula is "
        f"{largest_error(second, by_hand):.1g}.",
        "grad_x, grad_y = torch.autograd.grad(out, (x, y), torch.ones_like(out), create_graph=True), then the line as "
        "it is.",
    )
