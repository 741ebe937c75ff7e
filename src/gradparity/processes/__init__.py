"""Code that runs in other processes: a user's loop in a sandbox, or a training on several ranks.

Read in this order: ``determinism`` (a process made ready for a GPU, or without any), ``fork_server`` (a fast start),
``sandbox`` (one process that may hang or crash), ``launch`` (one process for each rank), ``failed_ranks`` (the first
rank that failed, and its error), ``collective_guard`` (all ranks make an exchange, or none), ``forked_map`` (a function
of ours on all cores), ``user_frames`` (the line of the user's code where something happened).
"""

from gradparity.processes.collective_guard import CollectiveGuard
from gradparity.processes.determinism import hide_gpus, prepare_device, prepare_worker
from gradparity.processes.fork_server import fork_context
from gradparity.processes.launch import launch
from gradparity.processes.sandbox import TimeLimit, run_in_subprocess

__all__ = [
    "CollectiveGuard",
    "TimeLimit",
    "fork_context",
    "hide_gpus",
    "launch",
    "prepare_device",
    "prepare_worker",
    "run_in_subprocess",
]
