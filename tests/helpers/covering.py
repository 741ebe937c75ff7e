"""Some of many cases: enough that each value is in one of them. The others are long."""

import pytest


def quick_if_new(cases, values_of, never=lambda case: False):
    """``cases`` as parameters of a test; one is quick if it has a value that none before it has."""
    seen, parameters = set(), []
    for case in cases:
        values = set(values_of(case))
        new = not values <= seen and not never(case)
        seen |= values if new else set()
        parameters.append(pytest.param(case, marks=() if new else pytest.mark.long))
    return parameters
