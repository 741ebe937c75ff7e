"""What an audit states of a loop is true of it, also of a clip that does nothing."""

import pytest
from torch import nn

import gradparity
from audited_loops import loss_of, small


def between_the_largest_element_and_the_largest_norm(gradients):
    element, norm = max(g.abs().max() for g in gradients), max(g.norm() for g in gradients)
    assert element < norm, "a norm must not be taken for the largest element"
    return float(element + norm) / 2


@pytest.mark.parametrize(
    ("clip", "threshold", "reached"),
    [
        (nn.utils.clip_grad_value_, lambda gradients: 0.001, 4),
        (nn.utils.clip_grad_value_, between_the_largest_element_and_the_largest_norm, 0),
        (nn.utils.clip_grad_norm_, lambda gradients: 0.01, 4),
        (nn.utils.clip_grad_norm_, lambda gradients: 1e3, 0),
    ],
)
def test_it_is_counted_how_often_a_clip_reaches_its_threshold(clip, threshold, reached):
    with gradparity.audit() as audit:
        model, optimizer = small()
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()
            clip(model.parameters(), threshold([p.grad for p in model.parameters()]))
            optimizer.step()
    [said] = [item.text for item in audit.report.does if item.text.startswith("clipped")]
    assert said.endswith(f"and reached in {reached} of 4 steps")
    assert any("nothing reached" in words for words in audit.report.unexercised) == (reached == 0)
