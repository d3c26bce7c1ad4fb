"""``python -m dconv``: the command line."""

import sys

from dconv.cli import main

if __name__ == "__main__":
    sys.exit(main())
