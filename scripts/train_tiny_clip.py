"""Train the tiny CLIP of the embedded demonstration on widely and differently drawn scenes with captions.

python scripts/train_tiny_clip.py --out src/clip_har/demo/model
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import Random

import torch

from tiny_clip.captions import corpus
from tiny_clip.model import build_config, build_model, build_tokenizer, write_model
from tiny_clip.rendering import render_all
from tiny_clip.training import Recipe, train


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps")
    parser.add_argument("--minutes", type=float, help="end the training after this time; the rendering comes on top")
    parser.add_argument("--images", type=int, default=30_000, help="pictures to render")
    parser.add_argument("--batch-size", type=int, default=128, help="pictures per step")
    parser.add_argument("--width", type=int, default=160, help="width of the image tower, a multiple of 32")
    parser.add_argument("--layers", type=int, default=5, help="layers of the image tower")
    parser.add_argument("--vocabulary", type=int, default=1200, help="tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    return parser.parse_args()


def main() -> None:
    """Render, train, write."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer(corpus(Random(arguments.seed), 20_000), arguments.vocabulary)
    config = build_config(tokenizer, width=arguments.width, layers=arguments.layers)
    model = build_model(config)
    start = time.perf_counter()
    wide = render_all(
        arguments.seed,
        arguments.images,
        workers=arguments.workers,
        on_done=lambda done: print(f"rendered {done}/{arguments.images}", flush=True) if done % 5000 == 0 else None,
    )
    print(f"rendering took {time.perf_counter() - start:.0f} s", flush=True)
    recipe = Recipe(
        steps=arguments.steps, minutes=arguments.minutes, batch_size=arguments.batch_size, seed=arguments.seed
    )

    def report(step: int, loss: float, seconds: float) -> None:
        if step % 50 == 0 or step == recipe.steps:
            print(f"step {step}/{recipe.steps}  loss {loss:.3f}  {seconds:.0f} s", flush=True)

    steps = train(model, wide, tokenizer, recipe, report)
    write_model(model, config, tokenizer, arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"wrote {arguments.out}, {size} bytes, after {steps} steps")


if __name__ == "__main__":
    main()
