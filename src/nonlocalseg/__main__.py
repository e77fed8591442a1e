"""`python -m nonlocalseg`: the command line."""

import sys

from nonlocalseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
