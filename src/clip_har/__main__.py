"""`python -m clip_har`: the command line, for launchers such as torchrun."""

import sys

from clip_har.cli import main

if __name__ == "__main__":
    sys.exit(main())
