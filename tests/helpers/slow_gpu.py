"""Tensors on the CPU that are hashed as those on a GPU are, and whose digests come late."""

from gradparity.parity.on_gpu.plain import plain_rows
from gradparity.trace import arrangement, late_digests


class Written:
    """An event of a GPU that happens when the test says so, or when somebody waits for it."""

    def __init__(self, happened=False):
        self.happened, self.waits = happened, 0

    def query(self):
        return self.happened

    def synchronize(self):
        self.waits += 1
        self.happened = True


def hash_by_sums(monkeypatch, those=lambda shape: True):
    """Hash tensors as those on a GPU are: all, or those of some shapes. A test ends with ``forget_arrangements``."""
    real = arrangement.read_with

    def on_a_gpu(dtype, shape, device, by):
        return device if those(shape) else real(dtype, shape, device, by)

    monkeypatch.setattr(arrangement, "read_with", on_a_gpu)
    forget_arrangements()


def forget_arrangements():
    """Forget how tensors were read before."""
    arrangement._arranged.cache_clear()


def make_late(monkeypatch):
    """Return a list to which an event is added for each look; its digests are there when they are waited for."""
    events = []

    def start(tensors, which):
        events.append(Written())
        return late_digests._Batch(which, plain_rows([t.detach().contiguous() for t in tensors]), events[-1])

    hash_by_sums(monkeypatch)
    monkeypatch.setattr(late_digests, "_start", start)
    return events
