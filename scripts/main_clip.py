"""Train LoRA, then evaluate it: the historic command."""

import sys

from clip_har import historic

if __name__ == "__main__":
    sys.exit(historic.main(historic.main_clip))
