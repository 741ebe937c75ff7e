"""Where there is a GPU, loops on the host are checked and watched as they are elsewhere, and those on the GPU too."""

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from gradparity.adapters.callback import ParityCallback
from gradparity.diagnosis.command import EXAMPLE, check
from gradparity.diagnosis.lookup import Answer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


def right():
    """The loop that the help of ``check`` shows."""
    there = {"torch": torch}
    exec(EXAMPLE, there)
    return there["train"]


class Regression(lightning.LightningModule):
    factor = 1.0

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 4))

    def training_step(self, batch, _):
        return F.mse_loss(self.model(batch), batch[:, :4])

    def backward(self, loss, *arguments, **more):
        (loss * self.factor).backward(*arguments, **more)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Halved(Regression):
    factor = 0.5


def fitted(module, accelerator, precision):
    callback = ParityCallback()
    trainer = lightning.Trainer(
        accelerator=accelerator, precision=precision, devices=1, max_epochs=1, accumulate_grad_batches=2,
        gradient_clip_val=0.05, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module(), DataLoader(torch.randn(8, 6, 8), batch_size=None))
    return callback.verdict


@pytest.mark.parametrize("used", [False, True], ids=["never used here", "used here"])
def test_a_loop_on_the_host_is_checked_as_elsewhere(used):
    if used:
        torch.ones(1, device="cuda")
    assert check(right, "right", "fp16").finding.answer == Answer.IDENTICAL


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_the_callback_finds_what_is_wrong_and_nothing_else(accelerator, precision):
    assert fitted(Regression, accelerator, precision).parity
    assert not fitted(Halved, accelerator, precision).parity
