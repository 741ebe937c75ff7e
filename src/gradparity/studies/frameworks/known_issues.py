"""Causes of the differences: the line of a framework or of its documentation, and the public issue.

Written by hand, about the differences that ``tests/studies/frameworks`` finds in the versions of ``constraints.txt``.
No verdict depends on it.
"""

from dataclasses import dataclass

from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, TWO_RANKS, UNSHUFFLED

LIGHTNING = ("Lightning, automatic", "Lightning, manual")
LIGHTNING_ON_RANKS = (*LIGHTNING, "Lightning, toggle_model", "Lightning, autograd", "Lightning, averaged")
FP16 = ("fp16 and clipping", "fp16 and an overflow")
RESUMES = ("resume mid-epoch", "resume with dropout off")
ACCUMULATING = ("K = 3", "partial last window", "clipping", "bf16", *FP16, "schedule per step", *RESUMES)


@dataclass(frozen=True)
class Known:
    """One cause, and the cells in which it shows."""

    frameworks: tuple[str, ...]
    scenarios: tuple[str, ...]
    cause: str
    on_ranks: tuple[str, ...] = ()
    """Frameworks in which it shows on two ranks, in the scenarios of the same names."""

    @property
    def places(self) -> list[tuple[str, str]]:
        """Return framework and scenario of each cell."""
        alone = [(framework, scenario) for framework in self.frameworks for scenario in self.scenarios]
        names = [TWO_RANKS + scenario for scenario in self.scenarios]
        together = [(framework, name) for framework in self.on_ranks for name in names if name in RANK_SCENARIOS]
        return alone + together


KNOWN = (
    Known(
        (*LIGHTNING, "Fabric", "Fabric, word for word", "Accelerate", "Ignite"),
        ("uneven token counts",),
        "A mean of means: each microbatch's mean weighs the same, however few tokens it has. The transformers Trainer "
        "counts the window since https://github.com/huggingface/transformers/pull/34191; Accelerate's page has a "
        "recipe since https://github.com/huggingface/accelerate/pull/3193.",
    ),
    Known(
        (),
        ("uneven token counts",),
        "A mean of means on each rank, and then DDP's mean over the ranks, however many tokens each has. The "
        "transformers Trainer counts the tokens of all ranks, and so does Accelerate's recipe.",
        on_ranks=(*LIGHTNING_ON_RANKS, "Fabric", "Accelerate"),
    ),
    Known(
        ("Accelerate, token count",),
        ("uneven token counts",),
        "Rounding: the recipe multiplies the loss by K, since backward() divides it by K again. Some processors round "
        "the first loss to the same bits; no processor does so with the first gradient.",
        on_ranks=("Accelerate, token count",),
    ),
    Known(
        ("Lightning, automatic", "Accelerate"),
        ("partial last window",),
        "The step is made, but the losses of a short window are divided by the full K "
        "(https://github.com/Lightning-AI/pytorch-lightning/issues/19987). The transformers Trainer had the same "
        "(https://github.com/huggingface/transformers/issues/38837).",
        on_ranks=("Lightning, automatic", "Lightning, toggle_model", "Lightning, averaged", "Accelerate"),
    ),
    Known(
        ("Lightning, manual", "Fabric", "Ignite"),
        ("partial last window",),
        "Divided by the full K, and then the step is never made: the loop as it is taught steps after each K-th "
        "microbatch only.",
        on_ranks=("Fabric",),
    ),
    Known(
        ("Fabric, word for word",),
        ACCUMULATING,
        "The documentation's `is_accumulating = iteration % K != 0` is False at iteration 0: the first step is made "
        "after one microbatch, and every window is shifted from there on. The documentation has had it since "
        "https://github.com/Lightning-AI/pytorch-lightning/pull/14966; we know of no issue about it.",
    ),
    Known(
        ("Lightning, manual",),
        ("fp16 and clipping",),
        "The documentation's clip_gradients() clips gradients that are still multiplied by the loss scale "
        "(https://github.com/Lightning-AI/pytorch-lightning/issues/18089).",
        on_ranks=("Lightning, toggle_model",),
    ),
    Known(
        (*LIGHTNING, "Fabric"),
        ("fp16 and an overflow",),
        "The schedule advances after a step that the scaler has skipped "
        "(https://github.com/Lightning-AI/pytorch-lightning/issues/18828). The scaler gives no sign of it "
        "(https://github.com/pytorch/pytorch/issues/67590).",
    ),
    Known(
        ("Accelerate", "Accelerate, token count", "transformers"),
        FP16,
        "On a CPU fp16 is silently fp32: no autocast, no loss scale, and so nothing to overflow "
        "(accelerate/accelerator.py turns both on for other devices only).",
        on_ranks=("Accelerate", "Accelerate, token count", "transformers"),
    ),
    Known(
        ("Ignite",),
        ("bf16", "fp16 and an overflow"),
        'amp_mode="amp" enters autocast("cuda"), whatever the device: on a CPU the forward stays in fp32.',
    ),
    Known(
        ("Ignite",),
        ("schedule per step",),
        "Every step has read the right learning rate. Ignite's handler sets it before an iteration, and not after a "
        "step, so that what is left at the end is the last one that was used.",
    ),
    Known(
        ("Fabric",),
        ("resume mid-epoch",),
        "A checkpoint holds what one puts in, and the random state is not in it: other dropout masks. Without dropout "
        "the two halves are one training.",
    ),
    Known(
        (*LIGHTNING, "Ignite"),
        RESUMES,
        "The second half begins with the first microbatch of the epoch again: a plain DataLoader is not moved to where "
        "it was (https://github.com/Lightning-AI/pytorch-lightning/issues/19764; Ignite has its DeterministicEngine).",
    ),
    Known(
        (),
        (UNSHUFFLED.removeprefix(TWO_RANKS),),
        "With strategy ddp the Trainer shuffles the training data, whatever the DataLoader says "
        "(https://github.com/Lightning-AI/pytorch-lightning/issues/10170). In the other scenarios the reference "
        "trains in the order that the Trainer draws.",
        on_ranks=LIGHTNING_ON_RANKS,
    ),
    Known(
        (),
        ("K = 3", "partial last window", "clipping", "bf16", "fp16 and clipping"),
        "Under manual optimization every manual_backward() exchanges the gradients, those of earlier microbatches once "
        "more: K times the traffic, and other bits. toggle_model(sync_grad=...) or no_sync by hand exchange once.",
        on_ranks=("Lightning, manual",),
    ),
    Known(
        (),
        ("K = 1", "K = 3", "partial last window", "clipping", "bf16", "fp16 and clipping"),
        "An overridden backward() with autograd.grad: DDP's hooks are never called, nothing is exchanged and nothing "
        "raises. Each rank trains its own model. Averaged by hand in that backward(), it equals the reference.",
        on_ranks=("Lightning, autograd",),
    ),
)


def cause(framework: str, scenario: str) -> str:
    """Return the known cause of a cell of the table, or an empty string."""
    found = (known.cause for known in KNOWN if (framework, scenario) in known.places)
    return next(found, "")
