"""The fix of a fault: its patch in reverse, and a link to read about it."""

_SWAP = {"+": "-", "-": "+"}


def fix_of(patch: str) -> list[str]:
    """Reverse a fault's patch: return lines to remove, marked ``-``, and lines to add, marked ``+``."""
    lines = [line for line in patch.strip("\n").split("\n") if "yield Moment(" not in line]
    swapped = [_SWAP.get(line[:1], line[:1]) + line[1:] for line in lines]
    return [*_sorted_runs(swapped)]


def _sorted_runs(lines: list[str]) -> list[str]:
    """Sort each run of changed lines: removed lines first, then added ones."""
    done: list[str] = []
    run: list[str] = []
    for line in [*lines, ""]:
        if line[:1] in _SWAP:
            run.append(line)
            continue
        done += sorted(run, key=lambda changed: changed[0] == "+")
        run = []
        done.append(line)
    return done[:-1]


def link(source: str) -> str:
    """Return the address or the file to read about it.

    >>> link("pytorch/pytorch#34082")
    'https://github.com/pytorch/pytorch/issues/34082'
    """
    repository, number_sign, number = source.partition("#")
    return f"https://github.com/{repository}/issues/{number}" if number_sign else source
