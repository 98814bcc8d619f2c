"""`python -m retinart`."""

import sys

from retinart.cli import main

if __name__ == "__main__":
    sys.exit(main())
