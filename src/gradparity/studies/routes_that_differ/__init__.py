"""Alternative ways to compute the same update, each with a prediction of the bits it gives.

Read in this order: ``loops`` (the alternatives), ``branching`` (the task of two of them), ``parameter_uses`` and
``sqrt_rounding`` (the models behind two predictions), ``predicted_places`` (the place of the first difference),
``catalogue`` (each loop with its prediction and the reason), ``measure``, ``result``, ``growth_plots``.
"""

from gradparity.studies.routes_that_differ.catalogue import VARIANTS, Prediction, Variant
from gradparity.studies.routes_that_differ.measure import VariantOutcome, variant_outcome

__all__ = ["VARIANTS", "Prediction", "Variant", "VariantOutcome", "variant_outcome"]
