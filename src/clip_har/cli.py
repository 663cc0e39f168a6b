"""The command line: flags in, progress and tables out, exit codes. No logic; that is in commands/ and predict.py.

Exit codes: 0 done, 1 our fault (traceback), 2 the user's input (one line), 3 a check found something
(data audit, data verify), 130 interrupted (state saved).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter
from cyclopts.config import Dict as ConfigValues

from clip_har import __version__
from clip_har.cli_data import EXIT_DONE, data_app, shown_progress, speaks
from clip_har.cli_flags import CONFIG_TYPES, MAX_SEED, flag_problem, refuse_empty, require, value_of
from clip_har.cli_import import import_
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    ExplainConfig,
    MethodNames,
    Precision,
    PromptsConfig,
    TrainConfig,
    load_config_file,
)
from clip_har.config.ranges import MAX_WORKERS
from clip_har.errors import UserError
from clip_har.failures import machine_failure
from clip_har.interrupts import ended_like_ctrl_c
from clip_har.shown_text import shown, shown_json, shown_lines

# torch takes seconds to import: --help and a wrong flag do not wait for it, each command imports what it needs.

EXIT_OUR_FAULT, EXIT_USER_INPUT, EXIT_INTERRUPTED = 1, 2, 130
ConfigFile = Annotated[Path | None, Parameter(name="--config", help="JSON or TOML file of these settings; flags win.")]

app = App(
    name="clip-har",
    version=__version__,
    help="Fine-tune CLIP to recognise human actions in photographs, always measured against zero-shot.",
    help_format="plaintext",
)
app.command(data_app)
app.command(import_, name="import")


@app.command
def quickstart(
    *,
    out: Path = Path("quickstart"),
    methods: MethodNames = ("zero-shot", "linear-probe", "lora"),
    seed: int = 0,
    cache: Path | None = None,
) -> int:
    """See the whole job in a minute, without a network: drawn scenes, a tiny CLIP, LoRA against zero-shot.

    Example: clip-har quickstart --out quickstart

    Args:
        out: Folder for the drawn images, the runs, the tables and the report.
        methods: Methods and presets to compare, separated by commas.
        seed: Seed of the scenes and the training.
        cache: Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har.
    """
    from clip_har import commands
    from clip_har.console import Output

    require("quickstart", seed=(seed, 0, MAX_SEED))
    progress = shown_progress()
    comparison = commands.quickstart(
        out, methods=methods, seed=seed, cache=cache, progress=progress, command=_command()
    )
    Output().comparison(comparison.rows, comparison.results)
    Output().files(
        ("Report", out / "report.html"),
        ("The scenes, with answers", out / "contact_sheet.png"),
        ("Next, your own folder", "clip-har compare --data FOLDER --model ViT-B/32 --out own"),
    )
    return EXIT_DONE


@app.command
def train(config: Annotated[TrainConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Train one method on a folder of labelled images and leave a run folder.

    Example: clip-har train --data photos --model ViT-B/32 --method lora --epochs 15 --out runs/lora
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file  # read before the flags are; see _run
    run = commands.train(config, progress=shown_progress(), command=_command())
    if not speaks():
        return EXIT_DONE
    figures = run.card.validation
    kept = figures.get("candidate") or (f"epoch {figures['epoch']}" if "epoch" in figures else "zero-shot")
    output = Output()
    output.line(
        f"{run.card.method} ({kept}): validation accuracy {figures['val_accuracy']:.2%}, "
        f"macro F1 {figures['val_macro_f1']:.4f}, {run.card.trainable_params:,} trained parameters"
    )
    next_command = ("clip-har", "evaluate", "--data", str(config.data.data), "--checkpoint", str(run.folder))
    output.files(("Run", run.folder), ("Next", shlex.join(next_command)))
    return EXIT_DONE


@app.command
def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Score a run beside zero-shot on the test images; without --checkpoint, zero-shot alone.

    Example: clip-har evaluate --data photos --checkpoint runs/lora
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    result, out = commands.evaluate(config, progress=shown_progress(), command=_command())
    if not speaks():
        return EXIT_DONE
    output = Output()
    output.evaluation(result)
    output.findings(result.findings)
    output.files(("Report", out / "report.html"), ("Tables", out / "results.csv"))
    return EXIT_DONE


@app.command
def compare(config: Annotated[CompareConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Train and score several methods on the same splits, prompts and seed.

    Example: clip-har compare --data photos --model ViT-B/32 --methods zero-shot,linear-probe,lora --out out
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    comparison = commands.compare(config, progress=shown_progress(), command=_command())
    if not speaks():
        return EXIT_DONE
    output = Output()
    output.comparison(comparison.rows, comparison.results)
    output.files(("Report", config.out / "report.html"), ("Tables", config.out / "comparison.csv"))
    return EXIT_DONE


@app.command
def prompts(config: Annotated[PromptsConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Try the sentences that describe the classes, on the validation images: template sets and phrasings.

    Example: clip-har prompts --data photos --model ViT-B/32
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    trial, out = commands.try_prompts(config, progress=shown_progress())
    output = Output()
    output.prompts(trial)
    output.files(("Tables", out / "prompts.csv"), ("Sentences", out / "prompts.json"))
    return EXIT_DONE


@app.command
def explain(
    run: Path,
    /,
    *images: Path,
    data: Path | None = None,
    out: Path | None = None,
    limit: int = 24,
    neighbours: int = 5,
    maps: bool = True,
    embedding_map: Literal["auto", "pca", "umap", "none"] = "auto",
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    workers: int = -1,
    cache: Path | None = None,
) -> int:
    """Show why a run answers as it does: pixels, words, training images, confused classes, what training changed.

    Example: clip-har explain runs/lora --data photos

    Args:
        run: Run folder.
        images: Image files to explain, in place of the dataset's most telling test images.
        data: The dataset: its test images are explained, its training images are the neighbours.
        out: Folder for explain.json, explain.csv and the overlays. Default: explain/ in the run folder, or
            explain-images/ for images that are named.
        limit: Test images to explain one by one.
        neighbours: Nearest training images to name for each.
        maps: Draw which pixels speak for the answer.
        embedding_map: How the test images become points of a plane; umap needs pip install "clip-har[explain]".
        seed: Seed of that.
        model: Where the backbone is now, if not where the run says.
        device: Where the model runs: auto, cpu, cuda, cuda:1, mps.
        precision: Arithmetic of the image tower; auto picks bfloat16 where the hardware has it.
        workers: Processes that decode images; -1 means one per core.
        cache: Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har.
    """
    from clip_har import commands
    from clip_har.console import Output

    require("explain", limit=(limit, 0, None), neighbours=(neighbours, 0, None))
    require("explain", seed=(seed, 0, MAX_SEED), workers=(workers, -1, MAX_WORKERS))
    config = ExplainConfig(
        run=run,
        data=None if data is None else DataConfig(data=data),
        images=tuple(_image_files(images)),
        backbone=BackboneConfig(model=model, device=device, precision=precision, workers=workers, cache=cache),
        out=out,
        limit=limit,
        neighbours=neighbours,
        maps=maps,
        plane=embedding_map,
        seed=seed,
    )
    result, folder = commands.explain(config, progress=shown_progress())
    output = Output()
    output.explanation(result)
    output.files(("Everything", folder / "explain.json"), ("Image by image", folder / "explain.csv"))
    return EXIT_DONE


@app.command
def predict(
    run: Path,
    /,
    *images: Path,
    top: int = 3,
    confidence: float | None = None,
    accuracy: float | None = None,
    abstain_below: float | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
    model: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> int:
    """Say which action photographs show, with a finished run.

    Example: clip-har predict runs/lora photo.jpg holiday/*.jpg

    Args:
        run: Run folder.
        images: Image files, or folders of them.
        top: How many of the most likely classes to give.
        confidence: Also give the set of actions that holds the true one this often, such as 0.95.
        accuracy: Say "unsure" unless answers are right this often, such as 0.95.
        abstain_below: Say "unsure" below this calibrated confidence, in place of --accuracy.
        json_output: Print a JSON list instead of a table.
        model: Where the backbone is now, if not where the run says.
        device: Where the model runs: auto, cpu, cuda, cuda:1, mps.
        precision: Arithmetic of the image tower; auto picks bfloat16 where the hardware has it.
    """
    require("predict", top=(top, 1, None))
    if not images:
        raise UserError("No image is named", remedy="Example: clip-har predict runs/lora photo.jpg")
    from clip_har.console import Output
    from clip_har.predict import AbstentionPolicy, Predictor

    caution = AbstentionPolicy(coverage=confidence, accuracy=accuracy, abstain_below=abstain_below)
    predictor = Predictor(run, model=model, device=device, precision=precision)
    for note in predictor.notes:
        _say(note)
    predictions = list(predictor.predict(_image_files(images), top=top, caution=caution))
    if json_output:
        listed = json.dumps([item.to_json() for item in predictions], indent=2, ensure_ascii=False)
        sys.stdout.write(shown_json(listed) + "\n")
    else:
        Output().predictions(predictions)
    for item in predictions:
        if item.error or item.warning:
            _say(f"{'cannot read' if item.error else 'warning:'} {item.image}: {item.error or item.warning}")
    return EXIT_DONE if any(item.error is None for item in predictions) else EXIT_USER_INPUT


# --- running --------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None, *, app: App = app) -> int:
    """Run one command line and return its exit code, whatever happens."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    _COMMAND_LINE[:] = [*app.name, *tokens]
    try:
        with ended_like_ctrl_c():
            return run_command(tokens, app=app)
    except cyclopts.CycloptsError as error:
        return _refuse(flag_problem(error, tokens, app))
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as interrupt:
        return _interrupted(tokens, *interrupt.args)
    except BrokenPipeError:  # the reader of our output has gone, as in `clip-har ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:
        failure = machine_failure(error)
        return _our_fault() if failure is None else _refuse(str(failure))


def run_command(tokens: Sequence[str], *, app: App = app) -> int:
    """Parse a command line and run it; raises what goes wrong."""
    refuse_empty(tokens)
    path = value_of(tokens, "--config")
    if path is not None and tokens[0] in CONFIG_TYPES:
        values = load_config_file(Path(path), CONFIG_TYPES[tokens[0]], note=_say)
        # Under the command's name: cyclopts drops keys of the root that are called as a command, and "data" is one.
        app.config = (ConfigValues({tokens[0]: values}, source=path),)
    else:
        app.config = ()
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    result: Any = command(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else EXIT_DONE


_COMMAND_LINE: list[str] = []


def _command() -> str:
    """The command line as one would type it again, for reports and cards."""
    return shlex.join(" ".join(_COMMAND_LINE[:1]).split() + _COMMAND_LINE[1:])


def _image_files(given: Iterable[Path]) -> Iterator[Path]:
    """The files named, and for a folder all files in it and below that are not hidden."""
    for path in given:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        else:
            yield path


def _refuse(line: str) -> int:
    _say(f"clip-har: {line}")
    return EXIT_USER_INPUT


def _our_fault() -> int:
    sys.stderr.write(shown_lines(traceback.format_exc()))
    _say("This is a fault in clip-har: please report it with the lines above.")
    return EXIT_OUR_FAULT


def _interrupted(tokens: Sequence[str], run_folder: str = "") -> int:
    """Say how to go on. A training that has saved a state names its run folder."""
    again = _command()
    if run_folder and tokens[:1] == ["train"]:
        again += "" if value_of(tokens, "--out") else f" --out {shlex.quote(run_folder)}"
        again += "" if "--resume" in tokens else " --resume"
    _say(f"Interrupted. What is done is kept; continue with: {again}")
    return EXIT_INTERRUPTED


def _say(line: str) -> None:
    if not speaks():
        return
    with suppress(OSError):  # the terminal may be gone
        print(shown(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
