"""Where there is a GPU, loops on the host are checked and watched as they are elsewhere, and those on the GPU too."""

import subprocess
import sys

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from gradparity.check import check
from gradparity.cli.check import EXAMPLE
from gradparity.errors import UserError
from gradparity.integrations.lightning_callback import ParityCallback

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


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


def test_a_loop_on_the_host_is_checked_as_elsewhere(tmp_path):
    (tmp_path / "mine.py").write_text(f"import torch\n{EXAMPLE}")
    done = subprocess.run(
        [sys.executable, "-m", "gradparity", "check", "mine:train"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout[:11]) == (0, "Identical: "), done.stderr


def test_where_gradients_were_computed_before_there_is_one_sentence():
    torch.ones(1, device="cuda", requires_grad=True).sum().backward()
    with pytest.raises(UserError, match=r"^this process has already computed gradients and torch finds a GPU"):
        check(lambda: None, "none", "fp32")


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_the_callback_finds_what_is_wrong_and_nothing_else(accelerator, precision):
    if (accelerator, precision) == ("cpu", "16-mixed"):
        pytest.skip("Lightning computes in bf16 then, and says so")
    assert fitted(Regression, accelerator, precision).parity
    assert not fitted(Halved, accelerator, precision).parity
