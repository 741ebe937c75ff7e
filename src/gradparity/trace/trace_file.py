"""A trace on disk: an append-only file of JSON lines, and on request the tensors themselves.

A line describes the run, or it is a *form*, a record, or a note on something the recording lacks. A form lists names,
dtypes, shapes, strides, layouts and, where it is not XXH3, the hash, which rarely change. A record holds digests and
norms in the order of a form. If a run was killed, its trace can be read up to the last complete line. Reading a trace
executes no code: the files are JSON and safetensors.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gradparity.errors import UserError, writing
from gradparity.parity.bits import bits
from gradparity.parity.dense_parts import pieces
from gradparity.parity.state import Part, Unseen
from gradparity.safe_files.append_only import AppendOnlyFile
from gradparity.safe_files.open_regular import open_regular
from gradparity.trace.columns import Form, Forms, split
from gradparity.trace.digest import Hash, digest_by
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.late_fingerprints import shard_of
from gradparity.trace.line_format import MOST_VALUES, NamedForms, about_in, forms_in, note_in, parsed, record_in
from gradparity.trace.snapshot import Snapshot

TRACE_FILE = "trace.jsonl"
_FORMAT = 3

MOST_TRACE_BYTES = 2**30
"""Largest trace that is read, in bytes. In memory a trace takes about ten times as much."""

MOST_OF_A_LINE = 2**27
"""Longest line that is read, in bytes: enough for the hashes and names of about 1,000,000 tensors."""

_KEPT_AS_THEY_ARE = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
"""Dtypes that safetensors has supported since its first version. Other dtypes are stored as integers of their bits."""


class Writer:
    """Writer of a new trace in ``folder``, one record at a time.

    Raises:
        UserError: if ``folder`` holds a trace already or cannot be written. From ``write``: if the disk is full, or an
            event has more than :data:`MOST_VALUES` values in one part.
    """

    def __init__(self, folder: Path, about: Mapping[str, str | int], full: bool) -> None:
        self.folder, self.full = folder, full
        self._forms: dict[tuple[object, ...], int] = {}
        self._known: dict[tuple[tuple[str, ...], Forms], int] = {}
        """The numbers of the forms of tensors that were seen before; to put a form together takes longer."""
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = AppendOnlyFile(folder / TRACE_FILE)
        except FileExistsError:
            raise UserError(f"{folder} holds a trace already; choose another folder, nothing is overwritten") from None
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None
        self._line({"about": {"format": _FORMAT, **about}})

    def write(self, record: Record, seen: Snapshot) -> None:
        """Append ``record``. In a full trace, write the tensors of ``seen`` to disk before that line."""
        line: dict[str, Any] = {"event": record.event, "step": record.step}
        if record.microbatch is not None:
            line["microbatch"] = record.microbatch
        if record.parts:
            line["parts"] = {part: self._packed(values) for part, values in record.parts.items()}
        if self.full and (tensors := kept(seen)):
            line["tensors"] = f"{self._written}.safetensors"
            with writing(path := self.folder / line["tensors"]):
                path.write_bytes(save(tensors))
        self._line(line)
        self._written += 1
        if max(map(len, record.parts.values()), default=0) > MOST_VALUES:
            raise UserError(f"more than {MOST_VALUES:,} values at one event; what follows could not be read back")

    def note(self, sentence: str) -> None:
        """Append a sentence on something that the trace lacks."""
        self._line({"note": sentence})

    def close(self) -> None:
        """Close the file. No line can be appended afterwards."""
        self._lines.close()

    def _packed(self, values: Mapping[str, FingerprintValue]) -> dict[str, Any]:
        """Return fingerprints as the number of a form, digests and norms; return all other values unchanged."""
        names, columns, others = split(values)
        packed: dict[str, Any] = {}
        if others:
            packed["values"] = {n: {"unseen": v.what} if isinstance(v, Unseen) else v for n, v in others.items()}
        if names:
            packed["form"] = self._form(names, columns.forms)
            packed["digests"] = columns.digests
            packed["norms"] = " ".join(map("%.6g".__mod__, columns.norms))
        return packed

    def _form(self, names: tuple[str, ...], forms: Forms) -> int:
        """Return the number of a form; write it if it is new."""
        if (names, forms) not in self._known:
            form = tuple((name, *_said(one)) for name, one in zip(names, forms.rows, strict=True))
            if form not in self._forms:
                self._forms[form] = len(self._forms)
                self._line({"form": form})
            self._known[names, forms] = self._forms[form]
        return self._known[names, forms]

    def _line(self, content: Mapping[str, object]) -> None:
        self._lines.write(f"{json.dumps(content)}\n".encode())


def _said(form: Form) -> tuple[object, ...]:
    """Return what a line says of a form: the hash only where it is not XXH3."""
    return form[:-1] if form.by == Hash.XXH3 else form


def kept(seen: Snapshot) -> dict[str, Tensor]:
    """Return copies of the dense tensors of ``seen``, and of the values of its sparse tensors, by part and name."""
    values = {f"{part}/{name}": v for part, named in seen.items() for name, v in named.items()}
    tensors = {name: shard_of(v) for name, v in values.items() if isinstance(v, Tensor)}
    dense = {name: parts.get("", parts.get("values")) for name, v in tensors.items() if (parts := pieces(v))}
    return {name: _storable(value) for name, value in dense.items() if value is not None}


def _storable(tensor: Tensor) -> Tensor:
    """Return a contiguous copy of a dense tensor, in a dtype that safetensors supports."""
    kept = tensor if tensor.dtype in _KEPT_AS_THEY_ARE else bits(tensor.contiguous())
    return kept.detach().clone(memory_format=torch.contiguous_format)


def _restored(tensor: Tensor, dtype: str) -> Tensor:
    """Undo :func:`_storable`: return the original tensor, of dtype ``dtype``."""
    wanted = getattr(torch, dtype, tensor.dtype)
    if tensor.dtype == wanted:
        return tensor
    return torch.view_as_complex(tensor.view(wanted.to_real())) if wanted.is_complex else tensor.view(wanted)


def missing_tensor_files(trace: Trace) -> int:
    """Return the number of tensor files that the records name but that are missing or incomplete."""
    count = 0
    for name in filter(None, (record.tensors for record in trace.records if trace.folder)):
        path = Path(trace.folder or "") / name
        try:
            with safe_open(path if path.is_file() else "", framework="pt"):  # opening a pipe would block
                pass
        except (OSError, MemoryError, SafetensorError):
            count += 1
    return count


def read(folder: Path) -> Trace:
    """Return the trace in ``folder``, up to its last complete record.

    Raises:
        UserError: if there is no trace of this format, or a complete line is not a line of a trace.
    """
    path = folder / TRACE_FILE
    about: dict[str, str | int] = {}
    forms: list[NamedForms] = []
    records: list[Record] = []
    notes: list[str] = []
    try:
        with open_regular(path, MOST_TRACE_BYTES) as file:
            for number, text in enumerate(iter(partial(file.readline, MOST_OF_A_LINE), b""), start=1):
                if not text.endswith(b"\n") and len(text) < MOST_OF_A_LINE:
                    break  # an incomplete line: the run was killed
                try:
                    line = parsed(text)
                    if "about" in line:
                        about = about_in(line["about"])
                    elif "note" in line:
                        notes.append(note_in(line["note"]))
                    elif "form" in line:
                        forms.append(forms_in(line["form"]))
                    else:
                        records.append(record_in(line, forms))
                except (ValueError, KeyError):
                    raise UserError(f"{path}, line {number}, is not a line of a trace; record the loop anew") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a folder that record() has written") from None
    if about.get("format") != _FORMAT:
        raise UserError(f"{path} is not a trace of format {_FORMAT}; record the loop anew")
    complete = bool(records) and records[-1].event == Event.END
    return Trace(about, records, str(folder), complete, tuple(notes))


def tensor_of(trace: Trace, record: Record, part: Part, name: str) -> Tensor | None:
    """Return the kept tensor; ``None`` if none was kept, or if its fingerprint is not the one in the record."""
    printed = record.parts.get(part, {}).get(name)
    if record.tensors is None or trace.folder is None or not isinstance(printed, Fingerprint):
        return None
    path = Path(trace.folder) / record.tensors
    try:
        if not path.is_file():  # opening a pipe would block forever
            return None
        with safe_open(path, framework="pt") as file:
            key = next(key for key in file.keys() if trace.rename(key.removeprefix(f"{part}/")) == name)  # noqa: SIM118  # no dict
            tensor = _restored(file.get_tensor(key), printed.dtype)
    except (OSError, MemoryError, SafetensorError, StopIteration, RuntimeError):  # RuntimeError: a corrupt dtype
        return None
    if printed.layout != "dense":
        return tensor  # only the values of a sparse tensor, whose digest covers more than its values
    same = tensor.shape == printed.shape and digest_by(printed.by, tensor) == printed.digest
    return tensor if same else None
