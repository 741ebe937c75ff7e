"""Common claims about ``torch.autograd.grad`` and ``.backward()``, each as a check with a verdict."""

from gradparity.studies.claims import backward, grad, second_order, summary, tools
from gradparity.studies.claims.evidence import Claim, ClaimVerdict, Evidence, name_of, sentence_of

__all__ = ["CLAIMS", "Claim", "ClaimVerdict", "Evidence", "name_of", "sentence_of"]

CLAIMS: tuple[Claim, ...] = (
    grad.returns,
    grad.many_inputs,
    grad.jacobian_rows,
    grad.functional,
    grad.in_loops,
    grad.vjp,
    backward.optimizers_read_grad,
    backward.all_parameters,
    backward.accumulation,
    backward.ecosystem,
    backward.standard_loop,
    summary.fills_grad,
    summary.accumulates_correctly,
    tools.optimizers,
    tools.amp,
    tools.ddp,
    tools.schedulers,
    tools.clipping,
    tools.hooks,
    summary.millions_of_parameters,
    summary.no_replacement,
    second_order.second_derivative,
)
"""All claims in reading order: six for autograd.grad, five for .backward(), the summary, the closing error."""
