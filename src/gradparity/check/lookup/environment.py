"""Everything besides the faults on which the bits of a run depend, as one hash; runs from elsewhere are not trusted."""

import os
import platform
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xxhash

import gradparity

_VARIABLES = ("ATEN_", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH_")
"""The beginnings of the names of environment variables that choose how numbers are computed."""

_OF_EACH_CORE = ("processor", "cpu mhz", "bogomips", "core id", "apicid", "initial apicid", "physical id", "siblings")
"""Lines of ``/proc/cpuinfo`` that differ between cores, or from moment to moment."""


@cache
def environment() -> str:
    """Return a hash of the versions, of gradparity's own source, of the processor, and of variables for libraries."""
    return hash_of_parts(
        platform.python_version(),
        platform.platform(),
        torch.__version__,
        torch.__config__.show(),
        torch.backends.cpu.get_cpu_capability(),
        np.__version__,
        xxhash.VERSION,
        _processor(),
        source(Path(gradparity.__file__).parent),
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_VARIABLES)),
    )


def hash_of_parts(*parts: str) -> str:
    """Return a hash of some texts."""
    return xxhash.xxh3_128_hexdigest(repr(parts).encode())


def source(folder: Path) -> str:
    """Return a hash of all Python files in ``folder``."""
    content = xxhash.xxh3_128()
    for path in sorted(folder.rglob("*.py")):
        content.update(repr((path.relative_to(folder).as_posix(), path.read_bytes())).encode())
    return content.hexdigest()


def _processor() -> str:
    """Return the model and the features of the processor."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        first = [platform.processor(), platform.machine()]
    return "\n".join(line for line in first if line.split("\t")[0].strip().lower() not in _OF_EACH_CORE)
