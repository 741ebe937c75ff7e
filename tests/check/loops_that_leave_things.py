"""Correct loops that leave something behind in their process."""

import copy
import logging
import multiprocessing
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from loops import example as right


def leaving(mess):
    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        right(model, optimizer, batches, loss, scaler, scheduler, plan)
        mess(model, optimizer)

    return loop


def autocast_on(model, optimizer):
    kept.append(torch.autocast("cpu", dtype=torch.bfloat16))
    kept[-1].__enter__()


def inference_on(model, optimizer):
    kept.append(torch.inference_mode())
    kept[-1].__enter__()


def patch_dropout(model, optimizer):
    nn.functional.dropout = lambda x, *_, **__: x


def patch_step(model, optimizer):
    torch.optim.AdamW.step = lambda self, closure=None: None


def double_the_gradients(module, inputs, output):
    return output * 2


def hook_all_modules(model, optimizer):
    nn.modules.module.register_module_forward_hook(double_the_gradients)


def hook_all_optimizers(model, optimizer):
    register_optimizer_step_post_hook(lambda *_: None)


def hook_the_model(model, optimizer):
    model.register_forward_hook(lambda *_: None)
    model.up.register_full_backward_hook(lambda *_: None)
    model.up.weight.register_hook(lambda g: None)
    model.up.weight.register_post_accumulate_grad_hook(lambda p: None)
    optimizer.register_step_pre_hook(lambda *_: None)


def a_mode_on(model, optimizer):
    class Twice(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, kinds, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            return out * 2 if func is nn.functional.linear else out

    kept.append(Twice())
    kept[-1].__enter__()


def change_many_harmless_things(model, optimizer):
    os.chdir("/")
    os.environ["LEARNING_RATE"] = "0.1"
    sys.path.insert(0, "/nowhere")
    logging.basicConfig(level=0)
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("error")
    torch.manual_seed(3)
    random.seed(3)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.set_flush_denormal(True)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.setrecursionlimit(300)


kept = []
leaves_float64 = leaving(lambda *_: torch.set_default_dtype(torch.float64))
leaves_a_device = leaving(lambda *_: torch.set_default_device("meta"))
leaves_gradients_off = leaving(lambda *_: torch.set_grad_enabled(False))
leaves_inference_on = leaving(inference_on)
leaves_autocast_on = leaving(autocast_on)
leaves_anomalies_detected = leaving(lambda *_: torch.autograd.set_detect_anomaly(True))
leaves_a_patched_function = leaving(patch_dropout)
leaves_a_patched_method = leaving(patch_step)
leaves_a_global_hook = leaving(hook_all_modules)
leaves_a_harmless_global_hook = leaving(hook_all_optimizers)
leaves_a_mode_on = leaving(a_mode_on)
leaves_hooks = leaving(hook_the_model)
leaves_much_that_is_harmless = leaving(change_many_harmless_things)


def starts(target, daemon):
    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        right(model, optimizer, batches, loss, scaler, scheduler, plan)
        threading.Thread(target=target, args=(model, batches, loss), daemon=daemon).start()

    return loop


def go_on_training(model, batches, loss):
    while True:
        loss(model, batches[0]).backward()


def wait_for_nothing(*_):
    time.sleep(1e6)


leaves_a_thread_that_trains = starts(go_on_training, daemon=True)
leaves_a_thread_that_waits = starts(wait_for_nothing, daemon=False)


def leaves_a_process(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1e6,)).start()


def leaves_a_command(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    subprocess.Popen(["sleep", "1000"])


def trains_in_a_thread(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right."""
    thread = threading.Thread(target=right, args=(model, optimizer, batches, loss, scaler, scheduler, plan))
    thread.start()
    thread.join()


def leaves_a_timer(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    threading.Timer(1e6, print).start()


def keeps_a_pool(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right: Python itself ends the threads of a pool."""
    kept.append(ThreadPoolExecutor(1))
    kept[-1].submit(right, model, optimizer, batches, loss, scaler, scheduler, plan).result()


def talks_a_lot(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, and prints 8 MB, by Python, by the system and by a child of its own."""
    for _ in range(100):
        print("x" * 40_000)
        os.write(1, b"y" * 40_000)
    subprocess.run(["echo", "from a child"], check=True)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def keeps_an_average(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, with a copy of the model, as for a moving average."""
    average = copy.deepcopy(model)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters(), strict=True):
            a.lerp_(p, 0.1)


def compiles(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right."""
    right(torch.compile(model, backend="eager"), optimizer, batches, loss, scaler, scheduler, plan)


def draws_elsewhere(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Different in each run."""
    right(model, optimizer, batches, lambda *given: loss(*given) * secrets.randbelow(2**40), scaler, scheduler, plan)
