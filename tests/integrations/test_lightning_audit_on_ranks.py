"""The Lightning callback on two ranks: rank 0 prints one report on both, however the ranks were started."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from gradparity.integrations.lightning_audit import AuditCallback

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def on_after_backward(self):
        if "--wrong" in sys.argv and self.global_rank:
            self.net.weight.grad *= 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

torch.set_num_threads(1)
callback = AuditCallback()
data = DataLoader(TensorDataset(torch.randn(96, 4), torch.randint(0, 3, (96,))), 8, shuffle=True)
quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, accumulate_grad_batches=2, callbacks=[callback], **quiet
)
trainer.fit(Module(), data)
print("rank", trainer.global_rank, callback.report.verdict, *callback.report.notes)
"""


@pytest.mark.parametrize(
    ("argument", "verdict"),
    [
        pytest.param("--right", "clean", marks=pytest.mark.long),
        pytest.param("--wrong", "wrong", marks=pytest.mark.slow),
    ],
)
def test_rank_0_reports_for_both(argument, verdict, tmp_path):
    (tmp_path / "fit.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "fit.py", argument],
        capture_output=True, text=True, check=False, env=environment, timeout=180, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"rank 0 {verdict}\n" in done.stdout
    assert done.stderr.count("2 ranks train together") == 1
    assert done.stderr.count("GP751 gradients-not-exchanged") == (argument == "--wrong")
