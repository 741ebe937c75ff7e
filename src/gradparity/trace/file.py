"""A trace on disk: lines of JSON that are only ever appended, and beside them, if asked for, the tensors themselves.

A line is about the run, or it is a *form*, or a record. A form lists names, dtypes, shapes and strides, which hardly
ever change; a record has hashes and norms in the order of a form. What is left of a run that was killed can be read
up to its last complete line. Reading runs nothing: it is JSON, and safetensors.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradparity.errors import UserError
from gradparity.parity.state import Part
from gradparity.trace.fingerprint import Fingerprint, Printed, shard_of
from gradparity.trace.record import Event, Record, Trace
from gradparity.trace.seen import Seen

NAME = "trace.jsonl"
FORMAT = 1


class Writer:
    """Appends records to a new trace in ``folder``.

    Raises:
        UserError: if there is a trace already, or the folder cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, str | int], full: bool) -> None:
        self.folder, self.full = folder, full
        self._forms: dict[tuple[object, ...], int] = {}
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines: IO[str] = (folder / NAME).open("x", buffering=1)
        except FileExistsError:
            raise UserError(f"{folder} holds a trace already; choose another folder, nothing is overwritten") from None
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None
        self._line({"about": {"format": FORMAT, **about}})

    def write(self, record: Record, seen: Seen) -> None:
        """Append ``record``; of a full trace also the tensors of ``seen``, which are on disk before the line is."""
        line: dict[str, Any] = {"event": record.event, "step": record.step}
        if record.microbatch is not None:
            line["microbatch"] = record.microbatch
        if record.parts:
            line["parts"] = {part: self._packed(values) for part, values in record.parts.items()}
        if self.full and (tensors := kept(seen)):
            line["tensors"] = f"{self._written}.safetensors"
            save_file(tensors, self.folder / line["tensors"])
        self._line(line)
        self._written += 1

    def close(self) -> None:
        """No more lines."""
        self._lines.close()

    def _packed(self, values: Mapping[str, Printed]) -> dict[str, Any]:
        """Prints of tensors as a form and what changes of it; all other values as they are."""
        tensors = {name: value for name, value in values.items() if isinstance(value, Fingerprint)}
        packed: dict[str, Any] = {}
        if plain := {name: value for name, value in values.items() if name not in tensors}:
            packed["values"] = plain
        if tensors:
            form = tuple((name, v.dtype, v.shape, v.strides, v.layout) for name, v in tensors.items())
            if form not in self._forms:
                self._forms[form] = len(self._forms)
                self._line({"form": form})
            packed["form"] = self._forms[form]
            packed["digests"] = "".join(value.digest for value in tensors.values())
            packed["norms"] = [float(f"{v.norm:.6g}") if math.isfinite(v.norm) else None for v in tensors.values()]
        return packed

    def _line(self, content: Mapping[str, object]) -> None:
        self._lines.write(json.dumps(content) + "\n")


def kept(seen: Seen) -> dict[str, Tensor]:
    """Copies of the dense tensors of ``seen``, and of the values of sparse ones, by part and name."""
    values = {f"{part}/{name}": v for part, named in seen.items() for name, v in named.items()}
    tensors = {name: shard_of(v) for name, v in values.items() if isinstance(v, Tensor)}
    dense = {name: v._values() if v.is_sparse else v for name, v in tensors.items()}
    return {name: value.detach().clone().contiguous() for name, value in dense.items()}


def read(folder: Path) -> Trace:
    """The trace in ``folder``, up to its last complete record.

    Raises:
        UserError: if there is none, or a line before the last is none of a trace.
    """
    path = folder / NAME
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")  # after the last newline is nothing, or half a line
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a folder that record() has written") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a trace: it is not text") from None
    about: dict[str, Any] = {}
    forms: list[list[list[Any]]] = []
    records: list[Record] = []
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            if "about" in line:
                about = dict(line["about"])
            elif "form" in line:
                forms.append(line["form"])
            else:
                records.append(_record(line, forms))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise UserError(f"{path}, line {number}, is not a line of a trace; record the loop anew") from None
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is not a trace of format {FORMAT}; record the loop anew")
    return Trace(about, records, str(folder), complete=bool(records) and records[-1].event == Event.END)


def _record(line: dict[str, Any], forms: list[list[list[Any]]]) -> Record:
    parts = {Part(part): _unpacked(packed, forms) for part, packed in line.get("parts", {}).items()}
    tensors = line.get("tensors")
    if tensors is not None and Path(tensors).name != tensors:
        raise ValueError("a trace names files of its own folder only")
    return Record(Event(line["event"]), int(line["step"]), line.get("microbatch"), parts, tensors)


def _unpacked(packed: dict[str, Any], forms: list[list[list[Any]]]) -> dict[str, Printed]:
    values: dict[str, Printed] = {
        name: tuple(map(str, value)) if isinstance(value, list) else value
        for name, value in packed.get("values", {}).items()
    }
    if "form" in packed:
        form, digests = forms[packed["form"]], packed["digests"]
        if len(digests) != 32 * len(form):
            raise ValueError("a digest for each tensor of the form")
        for index, ((name, dtype, shape, strides, layout), norm) in enumerate(zip(form, packed["norms"], strict=True)):
            digest = digests[32 * index : 32 * index + 32]
            norm = math.nan if norm is None else float(norm)
            values[name] = Fingerprint(dtype, tuple(shape), tuple(strides), layout, digest, norm)
    return values


def tensor_of(trace: Trace, record: Record, part: Part, name: str) -> Tensor | None:
    """A tensor that was kept, or ``None``."""
    if record.tensors is None or trace.folder is None:
        return None
    try:
        with safe_open(Path(trace.folder) / record.tensors, framework="pt") as file:
            key = next(key for key in file.keys() if trace.rename(key.removeprefix(f"{part}/")) == name)  # noqa: SIM118
            tensor: Tensor = file.get_tensor(key)
            return tensor
    except (OSError, SafetensorError, StopIteration):
        return None
