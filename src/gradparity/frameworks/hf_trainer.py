"""The Trainer of Hugging Face transformers, for a model of one's own that returns its loss.

https://huggingface.co/docs/transformers/main/en/trainer and the documentation of ``Trainer`` on the argument ``model``.
"""

from typing import Any

from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from gradparity.frameworks.scenario import MICROBATCH, Job, mean_loss, summed_loss


class WithLoss(nn.Module):
    """A model as the Trainer wants it; ``**kwargs`` tell it that the loss can be given the count of the window."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """The mean over the window, if its number of tokens is known, else over the microbatch."""
        logits = self.model(input_ids)
        count = kwargs.get("num_items_in_batch")
        loss = mean_loss(logits, labels) if count is None else summed_loss(logits, labels) / count
        return {"loss": loss, "logits": logits}


class Pieces(Dataset[dict[str, Tensor]]):
    """Examples as the Trainer collates them, by the names of ``forward``."""

    def __init__(self, job: Job) -> None:
        self.inputs, self.targets = job.examples

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.inputs[index], "labels": self.targets[index]}


def train(job: Job) -> None:
    """All by ``TrainingArguments``."""
    # They are one for each process, which usually trains once.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    scenario = job.scenario
    arguments = TrainingArguments(
        output_dir=str(job.checkpoint),
        use_cpu=True,
        seed=job.seed,
        num_train_epochs=1,
        max_steps=job.stop_after or -1,
        per_device_train_batch_size=MICROBATCH,
        gradient_accumulation_steps=scenario.k,
        train_sampling_strategy="sequential",
        max_grad_norm=scenario.max_norm or 0.0,  # 1.0 if nobody says anything
        bf16=scenario.precision == "bf16",
        fp16=scenario.precision == "fp16",
        save_strategy="steps" if job.stop_after else "no",
        save_steps=job.stop_after or 500,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
        report_to="none",
    )
    trainer = Trainer(
        model=WithLoss(job.model),
        args=arguments,
        train_dataset=Pieces(job),
        optimizers=(job.optimizer, job.scheduler),
    )
    trainer.train(resume_from_checkpoint=True if job.resume else None)
