"""Other ways to the same update, each with a prediction of the bits it gives.

In reading order: ``loops`` (what each does), ``uses`` and ``roots`` (what two of them are predicted by), ``places``
(where a prediction ends), ``catalogue`` (which loop is predicted by what, and why), ``measure``, ``picture``.
"""

from gradparity.studies.variants.catalogue import VARIANTS, Prediction, Variant
from gradparity.studies.variants.measure import Outcome, outcome
from gradparity.studies.variants.places import Place

__all__ = ["VARIANTS", "Outcome", "Place", "Prediction", "Variant", "outcome"]
