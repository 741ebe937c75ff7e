"""Training loops that nobody should have to check, and somebody will: they raise, hang, die, cheat, or leave a mess."""

import asyncio
import contextlib
import copy
import ctypes
import faulthandler
import functools
import logging
import multiprocessing
import os
import pdb
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from loops import example as right

# Loops that raise.


def raises_at_once(model, optimizer, batches, loss, scaler, scheduler, plan):
    raise ValueError("no data\nand a second line")


def raises_after_a_step(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches[:3], loss, scaler, scheduler, plan)
    raise RuntimeError("CUDA out of memory, say")


def raises_in_a_hook(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.up.register_full_backward_hook(lambda *_: 1 / 0)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def raises_from_another(model, batches):
    try:
        {}["learning_rate"]
    except KeyError as error:
        raise RuntimeError("no configuration") from error


def raises_a_group(model, batches):
    raise ExceptionGroup("two workers", [ValueError("one"), TypeError("other")])


class SpeechlessError(Exception):
    def __str__(self):
        raise ValueError("not even this")


def raises_what_cannot_be_told(model, batches):
    raise SpeechlessError


class Rude(BaseException):
    pass


def raises_a_base_exception(model, batches):
    raise Rude("out of the way")


def is_cancelled(model, batches):
    raise asyncio.CancelledError


def interrupts_itself(model, batches):
    raise KeyboardInterrupt


def recurses(model, batches):
    recurses(model, batches)


def wants_too_much_memory(model, batches):
    torch.empty(2**60)


def wants_too_long_a_list(model, batches):
    [0] * 2**60


def warns_as_an_error(model, optimizer, batches, loss, scheduler):
    warnings.simplefilter("error")
    scheduler.step()
    warnings.warn("old", DeprecationWarning, stacklevel=1)


def asks_the_user(model, batches):
    input("learning rate? ")


def starts_a_debugger(model, batches):
    pdb.Pdb().set_trace()  # as breakpoint() does, which pytest takes over


def swallows_everything(model, optimizer, batches, loss):
    """Never ends, and no exception gets through it."""
    while True:
        with contextlib.suppress(BaseException):
            loss(model, batches[0]).backward()
            optimizer.step()


def swallows_everything_once(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Does too much, and takes whatever stops it for its own end."""
    with contextlib.suppress(BaseException):
        for _ in range(1000):
            loss(model, batches[0]).backward()
            optimizer.step()


# Loops that do not end.


def sleeps(model, batches):
    time.sleep(1e6)


def spins(model, batches):
    while True:
        pass


def waits_for_a_lock(model, batches):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def joins_a_thread_that_never_ends(model, batches):
    thread = threading.Thread(target=time.sleep, args=(1e6,), daemon=True)
    thread.start()
    thread.join()


def hangs_in_c(model, batches):
    ctypes.PyDLL(None).sleep(1000)  # with the GIL, so that no other thread can run either


def hangs_deaf(model, batches):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGABRT):
        signal.signal(number, signal.SIG_IGN)
    spins(model, batches)


def puts_off_the_alarm(model, batches):
    """Has an alarm of its own, of which there is one in a process."""
    faulthandler.dump_traceback_later(1e6, file=sys.__stderr__)
    spins(model, batches)


def only_looks(model, batches, loss):
    """Makes forwards for ever, which leave no record."""
    while True:
        loss(model, batches[0])


# Loops that end the process.


def exits(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    sys.exit()


def exits_with_words(model, batches):
    sys.exit("bye")


def exits_at_once(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    os._exit(0)


def is_killed(model, batches):
    os.kill(os.getpid(), signal.SIGKILL)


def aborts(model, batches):
    os.abort()


def crashes(model, batches):
    ctypes.string_at(0)


def forks(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Returns twice, in two processes."""
    os.fork()
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def leaves_the_family(model, batches):
    """A daemon, as in a book on Unix: its parent exits."""
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(2)


# Loops that do not train, or not what they were given.


def does_nothing(model, optimizer, batches):
    pass


def returns_false(model, optimizer, batches):
    return False


def only_forwards(model, optimizer, batches, loss):
    for batch in batches:
        loss(model, batch)


def never_steps(model, optimizer, batches, loss):
    for batch in batches:
        loss(model, batch).backward()


def makes_a_coroutine(model, batches):
    async def train():
        pass

    return train()


async def yields_asynchronously(model, batches):
    yield 1


awaits_in_part = functools.partial(lambda model, batches, rate: makes_a_coroutine(model, batches), rate=0.1)


class Trainer:
    """A class whose making trains nothing."""

    def __init__(self, model, optimizer, batches, loss, scaler, scheduler, plan):
        self.given = (model, optimizer, batches, loss, scaler, scheduler, plan)

    def fit(self):
        right(*self.given)


def builds_its_own_optimizer(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, torch.optim.AdamW(model.parameters(), lr=0.02), batches, loss, scaler, scheduler, plan)


def trains_a_copy(model, optimizer, batches, loss, scaler, scheduler, plan):
    mine = copy.deepcopy(model)
    right(mine, torch.optim.AdamW(mine.parameters(), lr=0.02), batches, loss, scaler, scheduler, plan)


def trains_a_copy_with_the_optimizer(model, optimizer, batches, loss, scaler, scheduler, plan):
    """The gradients go to the copy, and the optimizer steps without any."""
    right(copy.deepcopy(model), optimizer, batches, loss, scaler, scheduler, plan)


def copies_the_optimizer_too(model, optimizer, batches, loss, scaler, scheduler, plan):
    model, optimizer, scheduler = copy.deepcopy((model, optimizer, scheduler))
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_the_groups(model, optimizer, batches, loss, scaler, scheduler, plan):
    optimizer.param_groups = torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1).param_groups
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.up = nn.Linear(model.up.in_features, model.up.out_features, bias=False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_a_layer_later(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches[:6], loss, scaler, scheduler, plan)
    replaces_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan)


def loads_by_assignment(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def adds_a_layer(model, optimizer, batches, loss, scaler, scheduler, plan):
    """A new parameter that the optimizer has never heard of."""
    model.scale = nn.Parameter(torch.ones(()))
    right(model, optimizer, batches, lambda *given: loss(*given) * model.scale, scaler, scheduler, plan)


def swaps_the_data(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right: the parameters keep their identity."""
    for p in model.parameters():
        p.data = p.data.clone()
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def changes_the_dtype(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.to(torch.float64)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def replaces_the_tensors_under_swap(model, optimizer, batches, loss, scaler, scheduler, plan):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def freezes_everything(model, optimizer, batches, loss, scaler, scheduler, plan):
    model.requires_grad_(False)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


# Loops that compute no numbers.


def loses_its_numbers(model, optimizer, batches, loss, scaler, scheduler, plan):
    """0 / 0 in the loss: each gradient is NaN, and a scaler skips each step."""
    right(model, optimizer, batches, lambda *given: loss(*given) * float("nan"), scaler, scheduler, plan)


def overflows_always(model, optimizer, batches, loss, scaler, scheduler, plan):
    right(model, optimizer, batches, lambda *given: loss(*given) * 1e38 * 1e38, scaler, scheduler, plan)


def loses_its_weights(model, optimizer, batches, loss, scaler, scheduler, plan):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    right(model, optimizer, batches, loss, scaler, scheduler, plan)


def loses_its_numbers_later(model, optimizer, batches, loss, scaler, scheduler, plan):
    """After the first step, and without a scaler that would look."""
    for group in optimizer.param_groups:
        group["lr"] = 1e30
    for window in (batches[:3], batches[3:6], batches[6:9]):
        optimizer.zero_grad()
        for batch in window:
            loss(model, batch).backward()
        optimizer.step()


# Right loops that leave something behind, which whoever comes next will find.


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
    """Right, with a copy of the model, as everybody makes one for a moving average."""
    average = copy.deepcopy(model)
    right(model, optimizer, batches, loss, scaler, scheduler, plan)
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters(), strict=True):
            a.lerp_(p, 0.1)


def compiles(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right."""
    right(torch.compile(model, backend="eager"), optimizer, batches, loss, scaler, scheduler, plan)


def draws_elsewhere(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Another loop each time."""
    right(model, optimizer, batches, lambda *given: loss(*given) * secrets.randbelow(2**40), scaler, scheduler, plan)


# Things that are no loops.

a_module = types
a_generator_in_part = functools.partial(yields_asynchronously)


def wants_more(model, optimizer, batches, learning_rate, *, device):
    pass


def takes_only_places(model, optimizer, /, batches):
    pass
