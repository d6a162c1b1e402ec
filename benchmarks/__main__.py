"""Entry of ``python -m benchmarks``."""

import os
import sys

# `-m` puts the working directory first. There the source folder stn_cuda/ would hide an installed
# stn_cuda, which holds the compiled module; last, it still serves an in-place build.
if sys.path[0] == os.getcwd():
    sys.path.append(sys.path.pop(0))

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
