"""Bad loops that raise, hang, or end their process."""

import asyncio
import contextlib
import ctypes
import faulthandler
import os
import pdb
import signal
import sys
import threading
import time
import warnings

import torch

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
    """Catches every exception and goes on for ever."""
    while True:
        with contextlib.suppress(BaseException):
            loss(model, batches[0]).backward()
            optimizer.step()


def swallows_everything_once(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Does too much, and returns when it is stopped."""
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
    """Sets an alarm of its own; a process has only one."""
    faulthandler.dump_traceback_later(1e6, file=sys.__stderr__)
    spins(model, batches)


def only_looks(model, batches, loss):
    """Makes forwards for ever, and no record of them."""
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
