"""Score a LoRA run beside zero-shot: the historic command."""

import sys

from clip_har import historic

if __name__ == "__main__":
    sys.exit(historic.main(historic.evaluate_lora_clip))
