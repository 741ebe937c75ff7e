import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradparity.training import windows


@given(st.lists(st.text(min_size=1), max_size=30), st.integers(1, 9))
def test_every_microbatch_is_in_one_window_and_the_normalizer_counts_the_whole_window(microbatches, k):
    grouped = list(windows(microbatches, k, count=len))
    assert [m for w in grouped for m in w.microbatches] == microbatches
    assert all(w.normalizer == len("".join(w.microbatches)) for w in grouped)
    assert all(len(w.microbatches) == k for w in grouped[:-1])
    assert all(1 <= len(w.microbatches) <= k for w in grouped)


def test_a_window_of_zero_microbatches_is_refused():
    with pytest.raises(ValueError, match="accumulation_steps is 0"):
        list(windows(["a"], 0, count=len))


def test_a_window_with_nothing_to_train_on_is_refused_before_it_divides_by_zero():
    with pytest.raises(ValueError, match="no sample or token"):
        list(windows(["", ""], 2, count=len))


def test_the_gradient_of_a_window_is_that_of_its_samples_however_they_are_cut():
    w = torch.randn(5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(12, 5, dtype=torch.float64)

    def gradient(sizes, k):
        (window,) = windows(x.split(sizes), k, count=len)
        return sum(
            torch.autograd.grad(m.matmul(w).square().sum() / window.normalizer, w)[0] for m in window.microbatches
        )

    whole = gradient([12], 1)
    torch.testing.assert_close(gradient([7, 1, 4], 3), whole, rtol=1e-12, atol=0)

    mean_of_means = sum(torch.autograd.grad(m.matmul(w).square().mean() / 3, w)[0] for m in x.split([7, 1, 4]))
    assert (mean_of_means - whole).norm() > 0.01 * whole.norm()
