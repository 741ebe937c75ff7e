"""TensorBoard event files that lose nothing when their process is killed."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]  # it has no annotations
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]  # nor has this
from torch.utils.tensorboard import FileWriter, SummaryWriter

from gradparity.safe_files.append_only import AppendOnlyFile

EVENTS = "events.out.tfevents"
"""The part of a file's name by which TensorBoard finds it."""


class Events(SummaryWriter):
    """A ``SummaryWriter`` whose methods return only after they have written.

    torch's own writer queues everything for a thread. If the process is killed, the queue is lost; if the disk is full,
    the thread prints a traceback.

    Raises:
        OSError: if ``folder`` cannot be written.
        DiskError: from any method, with the name of the file.
    """

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(folder)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer = _EventFile(self.folder)
            self.all_writers = {str(self.folder): self.file_writer}
        return self.file_writer

    def sync(self) -> None:
        """Return once all that was written would survive a power cut."""
        self.file_writer.event_writer.sync()


class _EventFile(FileWriter):
    """A ``FileWriter`` around a :class:`_Records`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a run in the order of their names.
        name = f"{EVENTS}.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.event_writer = _Records(AppendOnlyFile(folder / name))
        self.add_event(Event(file_version="brain.Event:2"))


class _Records:
    """The writer of event records for a ``FileWriter``."""

    def __init__(self, file: AppendOnlyFile) -> None:
        self._file = file
        self._records = RecordWriter(file)
        self.sync, self.close = file.sync, file.close

    def add_event(self, event: Event) -> None:
        """Append one event."""
        self._records.write(event.SerializeToString())

    def get_logdir(self) -> str:
        """Return the folder of the file."""
        return str(self._file.path.parent)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""
