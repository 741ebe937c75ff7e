"""Other ways to the same update, each with a prediction of the bits it gives.

In reading order: ``loops`` (what each does), ``uses`` and ``roots`` (what two of them are predicted by), ``places``
(where a prediction ends), ``catalogue`` (which loop is predicted by what, and why), ``measure``, ``picture``.
"""

from gradparity.variants.catalogue import VARIANTS, Prediction, Variant
from gradparity.variants.measure import Outcome, outcome
from gradparity.variants.places import Place

__all__ = ["VARIANTS", "Outcome", "Place", "Prediction", "Variant", "outcome"]
