"""What ranks are made to do in the tests of frameworks on ranks: functions of a module that they can import."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from gradparity.parity.state import Part
from gradparity.studies.frameworks.on_ranks import ON_RANKS, of_this_rank
from gradparity.studies.frameworks.reference import by_examples, job_microbatches, job_windows, reference_run
from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, TWO_RANKS
from gradparity.studies.frameworks.watch import loop_outcome, record_loop
from gradparity.trace.events import Event
from gradparity.trace.process_rank import this_rank, world_size
from gradparity.trace.trace_file import tensor_of
from gradparity.training import manual
from gradparity.training.collectives import share
from gradparity.training.distributed import RankRun, manual_step, tensors_of


def everything(names, folder):
    """What the tests ask of a rank, at once: to import the frameworks takes longer than to run their loops."""
    of_this_rank([], [], folder)  # torchrun's variables
    return {
        "thresholds": {name: other_threshold(name) for name in names},
        "rate": other_rate_on_rank_1(),
        "data": other_data_on_rank_1(),
        "gradients": first_gradients("Lightning, manual"),
        "by hand": [by_hand(shared) for shared in (True, False)],
        "temporary": tempfile.gettempdir(),
    }


def other_threshold(name):
    loop = ON_RANKS[name].framework.load()

    def wrong(job):
        loop(replace(job, scenario=replace(job.scenario, max_norm=0.06)))

    scenario = replace(RANK_SCENARIOS[f"{TWO_RANKS}clipping"], k=1, microbatches=1)
    reference = ON_RANKS[name].reference
    return loop_outcome(loop, scenario, reference), loop_outcome(wrong, scenario, reference)


def other_rate_on_rank_1():
    def wrong(job):
        job.optimizer.param_groups[0]["lr"] *= 1 + this_rank()
        by_examples(job)

    return loop_outcome(wrong, RANK_SCENARIOS[f"{TWO_RANKS}K = 1"], by_examples)


def other_data_on_rank_1():
    def wrong(job):
        if this_rank() == 1:
            job = replace(job, examples=type(job.examples)(*(part.flip(0) for part in job.examples)))
        by_examples(job)

    return loop_outcome(wrong, RANK_SCENARIOS[f"{TWO_RANKS}K = 1"], by_examples)


def by_hand(shared):
    def loop(job):
        if shared:
            share(tensors_of(job.model))
        run = replace(RankRun(**vars(reference_run(job))), route=manual)
        mine = type(job.examples)(*(part[this_rank() :: world_size()] for part in job.examples))
        for window in job_windows(job, job_microbatches(mine)):
            list(manual_step(run, window))

    return loop_outcome(loop, RANK_SCENARIOS[f"{TWO_RANKS}clipping"], by_examples)


def first_gradients(name):
    """Of step 0, as the optimizer reads them: the loop's and the reference's."""
    return [
        _ready(record_loop(loop, RANK_SCENARIOS[f"{TWO_RANKS}K = 3"], Path(tempfile.mkdtemp())))
        for loop in (ON_RANKS[name].framework.load(), ON_RANKS[name].reference)
    ]


def _ready(trace):
    record = next(r for r in trace.records if r.event == Event.READY)
    names = record.parts[Part.GRADIENTS]
    return torch.cat([tensor_of(trace, record, Part.GRADIENTS, name).flatten() for name in names]).tolist()
