"""Are common claims about torch.autograd.grad and .backward() true?

You will see each claim with a verdict, the measurement behind it, and what to write instead.
"Fails as written" means that the claim is false, or that its code raises, on the torch that is installed here.
"""

import sys
from collections.abc import Sequence

from gradparity.cli.main import main as gradparity


def main(arguments: Sequence[str]) -> int:
    return gradparity(["claims", "--output", "runs", *arguments])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
