"""``python -m gradparity`` is the command ``gradparity``."""

import sys

from gradparity.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
