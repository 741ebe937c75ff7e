"""What ranks are made to do in the tests of ``launch``: functions of a module that they can import."""

import os
import signal
import time

import torch
import torch.distributed as dist


def sums(start):
    numbers = torch.tensor([start + dist.get_rank()])
    dist.all_reduce(numbers)
    return dist.get_rank(), int(numbers), torch.get_num_threads()


def exchanges(steps_of_rank):
    for _ in range(steps_of_rank[dist.get_rank()]):
        dist.all_reduce(torch.zeros(1))
    return "done"


def dies(how):
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        os._exit(3) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.zeros(1))


def raises():
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        raise ValueError("no such\nbatch")
    dist.all_reduce(torch.zeros(1))


def hangs():
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        time.sleep(600)
    dist.all_reduce(torch.zeros(1))


def all_sleep():
    time.sleep(600)


def other_collectives():
    if dist.get_rank() == 0:
        dist.recv(torch.zeros(1), src=1)
    else:
        dist.recv(torch.zeros(1), src=0)
