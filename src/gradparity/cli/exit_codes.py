"""Exit codes of subcommands and experiments; an error that the user can fix is one sentence on stderr."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from gradparity.errors import UserError, without_deterministic_form

P = ParamSpec("P")


def exit_codes(program: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Wrap a ``main`` so that it returns this project's exit codes.

    The code is what ``main`` returns; 2, after one sentence on stderr, for an error that the user can fix; 130 after
    Ctrl-C.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def call(*args: P.args, **kwargs: P.kwargs) -> int:
            code = 2
            try:
                return main(*args, **kwargs)
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                refused = f"{error.filename or 'a file'} cannot be written ({error.strerror})"
                sentence = str(UserError(f"{refused}; choose a folder with --output"))
            except RuntimeError as error:
                found = without_deterministic_form(error)
                if found is None:
                    raise
                sentence = found
            except KeyboardInterrupt as error:
                code, sentence = 130, f"stopped; what was written until now stays{error}"
            print(f"{program}: {sentence}", file=sys.stderr)
            return code

        return call

    return decorate
