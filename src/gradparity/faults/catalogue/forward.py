"""Faults of the forward: a layer computes something else than it should."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import StressModel
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase

FORWARD = (
    Fault(
        name="positions-shifted",
        symptom="Each token gets the embedding of another position than its own.",
        needs="position embeddings",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        hidden = hidden + (self.position + self.position_correction)
+        hidden = hidden + (self.position + self.position_correction).roll(1, 0)
""",
        },
        sources=("huggingface/sentence-transformers#3879",),
    ),
    Fault(
        name="dropout-not-rescaled",
        symptom="Activations are smaller in training than in validation: what dropout leaves is not scaled up.",
        needs="dropout",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        active: Tensor = self.dropout(F.relu(self.up(normalized)))
+        active: Tensor = self.dropout(F.relu(self.up(normalized))) * (1 - self.dropout.p if self.training else 1)
""",
        },
        sources=("ayrna/dlordinal#138",),
    ),
)
