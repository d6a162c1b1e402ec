"""Entry of ``python -m benchmarks``."""

import sys

from benchmarks import environment
from benchmarks.cli import main

if __name__ == "__main__":
    environment.prefer_installed()
    environment.keep_memory()
    sys.exit(main())
