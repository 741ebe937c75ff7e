"""One function collects comparisons in a verdict, whatever they come from."""

from gradparity.parity.verdict import verdict_of
from small import comparisons, small_config

RIGHT = small_config(precision="fp16", candidate="manual")
WRONG = small_config(precision="fp16", candidate="clip-before-unscale")


def test_each_comparison_is_handed_on_once_it_is_counted():
    seen = []
    verdict = verdict_of(comparisons(RIGHT), seen.append)
    assert verdict.parity
    assert [found.place.phase for found in seen] == [found.place.phase for found in comparisons(RIGHT)]


def test_up_to_the_first_difference_nothing_after_it_is_compared():
    seen = []
    verdict = verdict_of(comparisons(WRONG), seen.append, up_to_first=True)
    assert verdict.first[0] is seen[-1]
    assert not any(found.mismatches for found in seen[:-1])
    assert len(seen) < len(list(comparisons(WRONG)))


def test_a_verdict_goes_on():
    once, twice = verdict_of(comparisons(RIGHT)), verdict_of(comparisons(RIGHT))
    assert verdict_of(comparisons(RIGHT), verdict=twice) is twice
    assert (twice.steps, twice.numbers) == (2 * once.steps, 2 * once.numbers)
