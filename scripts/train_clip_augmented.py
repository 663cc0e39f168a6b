"""Train LoRA on augmented views and hard pairs: the historic command."""

import sys

from clip_har import historic

if __name__ == "__main__":
    sys.exit(historic.main(historic.train_clip_augmented))
