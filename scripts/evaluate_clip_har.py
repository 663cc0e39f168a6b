"""Score a run beside zero-shot, or zero-shot alone: the historic command."""

import sys

from clip_har import historic

if __name__ == "__main__":
    sys.exit(historic.main(historic.evaluate_clip_har))
