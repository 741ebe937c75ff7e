"""Training loops under the recorder, in memory."""

from contextlib import contextmanager
from dataclasses import replace

from gradparity.faults.custom_fault import rewritten
from gradparity.parity.random_stream import RandomStream
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig
from gradparity.trace.events import Event, Trace
from gradparity.trace.record import about
from gradparity.trace.snapshot import TrainingObjects
from gradparity.trace.step_recorder import Recorder
from gradparity.training import train_step
from small import small_config, small_lanes, small_task

CLIP = ClipConfig(by="norm", threshold=0.05)


@contextmanager
def watching(model, optimizer, **others):
    records = []
    with Recorder(TrainingObjects(model, optimizer, **others), lambda record, seen: records.append(record)).watching():
        yield records


def config_of(**fields):
    return small_config(**{"task": "transformer", "precision": "fp16", "clip": CLIP, "candidate": "backward", **fields})


def lane_of(config, step=train_step):
    _, lane = small_lanes(config)
    return replace(lane, step=step) if step is not train_step else lane


def trace_of(config, step=train_step, seed=5):
    """What a recorder sees of the loop that ``config`` names, or of another step."""
    lane = lane_of(config, step)
    with (
        RandomStream(seed).active(),
        watching(lane.run.model, lane.run.optimizer, scheduler=lane.run.scheduler) as records,
    ):
        for window in build.windows(config, small_task(config.task)):
            for _ in lane.step(lane.run, window):
                pass
    return Trace(about(), records)


def changed(right, wrong):
    """The reference step with one thing wrong."""
    return rewritten(train_step, right, wrong)


def events_of(trace, step):
    return [r.event for r in trace.records if r.step == step and r.event != Event.END]
