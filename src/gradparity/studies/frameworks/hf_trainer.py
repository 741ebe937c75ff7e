"""The Trainer of Hugging Face transformers, for a custom model that returns its loss.

https://huggingface.co/docs/transformers/main/en/main_classes/trainer
"""

from typing import Any

from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn, stack
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig, PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from gradparity.studies.frameworks.scenario import MICROBATCH, Job, mean_cross_entropy, summed_cross_entropy


class WithLoss(PreTrainedModel):
    """A model in the Trainer's form; its ``**kwargs`` show that its loss can use the token count of the window."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(PreTrainedConfig())
        self.model = model
        # Checkpoints need this: the Trainer refuses to save a plain nn.Module with tied weights.
        self._tied_weights_keys = {"model.head.weight": "model.token.weight"}

    def forward(self, input_ids: Tensor, labels: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Return the logits and the mean loss: over the window if its token count is known, else the microbatch."""
        logits = self.model(input_ids)
        count = kwargs.get("num_items_in_batch")
        loss = mean_cross_entropy(logits, labels) if count is None else summed_cross_entropy(logits, labels) / count
        return {"loss": loss, "logits": logits}


class InOrder(Trainer):
    """A Trainer that uses the job's own loader, as the documentation of ``get_train_dataloader`` proposes."""

    job: Job

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the microbatches, as dicts with the argument names of ``forward``."""
        loader = self.job.loader()
        loader.collate_fn = by_name
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


def by_name(examples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Collate examples into one microbatch, by the argument names of ``forward``."""
    inputs, targets = zip(*examples, strict=True)
    return {"input_ids": stack(inputs), "labels": stack(targets)}


def train(job: Job) -> None:
    """Train with everything set by ``TrainingArguments``."""
    # These exist once per process, as a process usually trains once.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    disable_progress_bar()
    scenario = job.scenario
    arguments = TrainingArguments(
        output_dir=str(job.checkpoint),
        use_cpu=True,
        seed=job.seed,
        num_train_epochs=1,
        max_steps=job.stop_after or -1,
        per_device_train_batch_size=MICROBATCH,
        gradient_accumulation_steps=scenario.k,
        max_grad_norm=scenario.max_norm or 0.0,  # its default is 1.0
        bf16=scenario.precision == "bf16",
        fp16=scenario.precision == "fp16",
        save_strategy="steps" if job.stop_after else "no",
        save_steps=job.stop_after or 500,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,  # there are none, and a search for them warns
        disable_tqdm=True,
        logging_strategy="no",
        report_to="none",
    )
    trainer = InOrder(model=WithLoss(job.model), args=arguments, optimizers=(job.optimizer, job.scheduler))
    trainer.job = job
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=True if job.resume else None)
