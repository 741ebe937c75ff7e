"""Alternative ways to compute the same update, each with a prediction of the bits it gives.

In reading order: ``loops`` (the alternatives), ``uses`` and ``sqrt_rounding`` (the models behind two predictions),
``places`` (the point at which a prediction ends), ``catalogue`` (each loop with its prediction and the reason),
``measure``, ``picture``.
"""

from gradparity.studies.variants.catalogue import VARIANTS, Prediction, Variant
from gradparity.studies.variants.measure import Outcome, outcome

__all__ = ["VARIANTS", "Outcome", "Prediction", "Variant", "outcome"]
