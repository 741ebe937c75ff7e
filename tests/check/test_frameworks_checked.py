"""Loops of frameworks through `gradparity check`: a correct one passes, and Lightning's normalization is named."""

import logging
from functools import partial

import pytest
import torch

from gradparity.check import check
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.main import main


def by_accelerate(model, optimizer, batches, loss, scheduler, plan):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            tokens = sum(plan.count(batch) for batch in window)
            optimizer.zero_grad()
            for batch in window:
                accelerator.backward(loss(model, batch) / tokens)
            accelerator.clip_grad_norm_(model.parameters(), plan.max_norm)
            optimizer.step()
            scheduler.step()


def by_fabric(model, optimizer, batches, loss, scheduler, plan):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(model, optimizer)
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            tokens = sum(plan.count(batch) for batch in window)
            optimizer.zero_grad()
            for batch in window:
                fabric.backward(loss(model, batch) / tokens)
            fabric.clip_gradients(model, optimizer, max_norm=plan.max_norm)
            optimizer.step()
            scheduler.step()


def by_lightning(model, optimizer, batches, loss, scheduler, plan):
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            return loss(self.model, batch) / plan.count(batch)

        def configure_optimizers(self):
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=plan.epochs, accumulate_grad_batches=plan.accumulation_steps,
        gradient_clip_val=plan.max_norm, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    # A separate generator: else the loader draws a seed from the stream of the dropout masks.
    trainer.fit(Module(), torch.utils.data.DataLoader(batches, batch_size=None, generator=torch.Generator()))


@pytest.mark.parametrize("loop", [by_accelerate, by_fabric])
def test_a_framework_loop_that_divides_by_the_window_tokens_is_identical(loop):
    assert check(partial(call_by_name, loop, "loop"), "loop", "fp32").finding.match == Match.IDENTICAL


def test_the_normalization_of_lightning_is_named():
    """It takes a mean of means, and divides the last window by the full K; one entry of the dictionary has both."""
    finding = check(partial(call_by_name, by_lightning, "loop"), "loop", "fp32").finding
    assert finding.match == Match.FAULT
    assert [fault.name for fault in finding.faults] == ["mean-of-microbatch-means-by-full-k"]


def other_names(net, opt, data, criterion, amp, sched, settings):
    by_fabric(net, opt, data, criterion, sched, settings)


def test_seven_arguments_under_other_names_are_passed_in_order(capsys):
    assert main(["check", f"{__name__}:other_names", "--precision", "fp32"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Identical:")
    assert captured.err == ""
