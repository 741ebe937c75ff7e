"""Training loops as five frameworks' documentation writes them: a right form each, and a wrong one that people write."""

import logging
import tempfile

import lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

X = torch.randn(44, 4, generator=torch.Generator().manual_seed(3))
Y = torch.randint(0, 3, (44,), generator=torch.Generator().manual_seed(4))
K = 3
QUIET = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
    "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


def batches(shuffle=True):
    return DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=shuffle)


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        self.log("validation", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = CosineAnnealingLR(optimizer, 60)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ClipsEveryMicrobatch(Classifier):
    def on_after_backward(self):
        nn.utils.clip_grad_norm_(self.parameters(), 0.05)


class ByHand(Classifier):
    """Manual optimization as Lightning's documentation teaches it, with accumulation, clip and schedule."""

    def __init__(self, right=True):
        super().__init__()
        self.automatic_optimization = False
        self.right = right

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        total = self.trainer.num_training_batches
        last = batch_idx + 1 == total
        length = min(K, total - batch_idx // K * K) if self.right else K
        self.manual_backward(super().training_step(batch, batch_idx) / length)
        if (batch_idx + 1) % K == 0 or last:
            self.clip_gradients(optimizer, gradient_clip_val=0.5)
            optimizer.step()
            optimizer.zero_grad()
            self.lr_schedulers().step()


class TwoPlayers(lightning.LightningModule):
    """A generator and a critic with an optimizer each, as in Lightning's example of a GAN."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        of_generator, of_critic = self.optimizers()
        fake = self.generator(torch.randn(len(batch[0]), 2))
        self.toggle_optimizer(of_generator)
        loss = F.binary_cross_entropy_with_logits(self.critic(fake), torch.ones(len(fake), 1))
        self.manual_backward(loss)
        of_generator.step()
        of_generator.zero_grad()
        self.untoggle_optimizer(of_generator)
        self.toggle_optimizer(of_critic)
        real = F.binary_cross_entropy_with_logits(self.critic(batch[0]), torch.ones(len(fake), 1))
        made = F.binary_cross_entropy_with_logits(self.critic(fake.detach()), torch.zeros(len(fake), 1))
        self.manual_backward((real + made) / 2)
        of_critic.step()
        of_critic.zero_grad()
        self.untoggle_optimizer(of_critic)

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.generator, self.critic)]


def fit(module, callbacks=(), data=None, trainer=lightning.Trainer, **arguments):
    """Train a module for two epochs; the Trainer's chatter is not what is tested."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    made = trainer(**{**QUIET, "max_epochs": 2, **arguments}, callbacks=list(callbacks))
    made.fit(module, data or batches(), *([] if isinstance(module, TwoPlayers) else [batches(False)]))
    return made


def lightning_automatic(right):
    module = Classifier() if right else ClipsEveryMicrobatch()
    fit(module, data=DataLoader(TensorDataset(X[:36], Y[:36]), 4), accumulate_grad_batches=K)


def lightning_manual(right):
    fit(ByHand(right))


def fabric(right):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = network()
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    schedule = CosineAnnealingLR(optimizer, 60)
    data = fabric.setup_dataloaders(batches())
    for _ in range(2):
        for i, (x, y) in enumerate(data):
            length = min(K, len(data) - i // K * K) if right else K
            end = (i + 1) % K == 0 or i + 1 == len(data)
            with fabric.no_backward_sync(model, enabled=not end):
                fabric.backward(F.cross_entropy(model(x).float(), y) / length)
            if end:
                fabric.clip_gradients(model, optimizer, max_norm=0.5)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()


def accelerate(right):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=K, mixed_precision="bf16")
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = DataLoader(TensorDataset(X[:36], Y[:36]), batch_size=4, shuffle=True)
    made = accelerator.prepare(model, optimizer, data, CosineAnnealingLR(optimizer, 60))
    model, optimizer, data, schedule = made
    for _ in range(2):
        for x, y in data:
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(x).float(), y)
                accelerator.backward(loss if right else loss / K)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()


def transformers_trainer(right, callbacks=(), **arguments):
    from transformers import Trainer, TrainingArguments

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels, num_items_in_batch=None, **others):  # these others let the Trainer leave it to us
            logits = self.net(x)
            if right and num_items_in_batch is not None:
                loss = F.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch
            else:
                loss = F.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits}

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            **{
                "output_dir": folder, "per_device_train_batch_size": 4, "gradient_accumulation_steps": K,
                "num_train_epochs": 2, "learning_rate": 0.01, "lr_scheduler_type": "cosine", "warmup_steps": 2,
                "max_grad_norm": 0.5, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
                "logging_strategy": "no", "use_cpu": True, "bf16": True, **arguments,
            },
        )  # fmt: skip
        data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
        model = Tagger()
        Trainer(model=model, args=settings, train_dataset=data, callbacks=list(callbacks)).train()
    return model


def ignite(right):
    from ignite.engine import Engine, Events
    from ignite.handlers import LRScheduler

    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def update(engine, batch):
        x, y = batch
        model.train()
        done = engine.state.iteration % K == 0
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(x).float(), y) / K
        scaler.scale(loss).backward()
        if done:
            if right:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return loss.item()

    trainer = Engine(update)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=K), LRScheduler(CosineAnnealingLR(optimizer, 60)))
    trainer.run(DataLoader(TensorDataset(X[:36], Y[:36]), 4, shuffle=True), max_epochs=3)


FRAMEWORKS = {
    lightning_automatic: ("GP302", "wrong"),
    lightning_manual: ("GP402", "wrong"),
    fabric: ("GP402", "wrong"),
    accelerate: ("GP406", "unusual"),
    transformers_trainer: ("GP404", "unusual"),
    ignite: ("GP201", "wrong"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""
