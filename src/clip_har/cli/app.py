"""The commands: flags in, tables out, exit codes. No logic; that is in commands/ and predict.py.

The commands of `clip-har data` are in data.py; running a command line, and what each exit code means, is in runner.py.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from clip_har import __version__
from clip_har.cli.data import data_app
from clip_har.cli.embedding import embed
from clip_har.cli.help import FLAGS, FilledFormatter
from clip_har.cli.shared import (
    EXIT_DONE,
    EXIT_FINDINGS,
    EXIT_USER_INPUT,
    ConfigFile,
    command_line,
    say,
    shown_progress,
    speaks,
)
from clip_har.cli.sweeping import sweep
from clip_har.cli.video import video, videos_of_predict
from clip_har.config import (
    STANDARD_INPUT,
    CompareConfig,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    ImportConfig,
    ModelsConfig,
    PredictConfig,
    PromptsConfig,
    QuickstartConfig,
    ServeConfig,
    TrainConfig,
)
from clip_har.shown_text import shown_json

# torch takes seconds to import: --help and a wrong flag do not wait for it, each command imports what it needs.

app = App(
    name="clip-har",
    version=__version__,
    help="Fine-tune CLIP for action recognition in still images, evaluated against zero-shot CLIP.",
    help_format="plaintext",
    help_formatter=FilledFormatter(),
    default_parameter=FLAGS,
)
app.command(data_app)


@app.command
def quickstart(
    config: Annotated[QuickstartConfig | None, Parameter(name="*")] = None, *, config_file: ConfigFile = None
) -> int:
    """Run the full pipeline in a minute, offline: synthetic images, a tiny CLIP, a linear probe and LoRA.

    Example: clip-har quickstart --out quickstart
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file  # read before the flags are; see runner.run_command
    config = config or QuickstartConfig()
    comparison = commands.quickstart(config, progress=shown_progress(), command=command_line())
    Output().comparison(comparison.rows, comparison.results)
    Output().files(
        ("Report", config.out / "report.html"),
        ("Contact sheet", config.out / "contact_sheet.png"),
        ("Next", "clip-har compare --data FOLDER --model ViT-B/32 --out own"),
    )
    return EXIT_DONE


@app.command
def train(config: Annotated[TrainConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Fine-tune CLIP on a labelled image dataset.

    Example: clip-har train --data photos --model ViT-B/32 --method lora --epochs 15 --out runs/lora
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    run = commands.train(config, progress=shown_progress(), command=command_line())
    if not speaks():
        return EXIT_DONE
    figures = run.card.validation
    kept = figures.get("candidate") or (f"epoch {figures['epoch']}" if "epoch" in figures else "zero-shot")
    judged_by = "cross-validated" if figures.get("cross_validated") else "validation"
    output = Output()
    output.line(
        f"{run.card.method} ({kept}): {judged_by} accuracy {figures['val_accuracy']:.2%}, "
        f"macro F1 {figures['val_macro_f1']:.4f}, {run.card.trainable_params:,} trained parameters"
    )
    next_command = ("clip-har", "evaluate", "--data", str(config.data.data), "--checkpoint", str(run.folder))
    if (rival := run.method.cheaper_rival) is not None:
        methods = f"zero-shot,{rival},{config.method}"
        output.line(
            f"{rival} trains in seconds and was more accurate than {config.method} in the comparisons of "
            f"docs/methods/index.md; clip-har compare --methods {methods} shows which is better on your data"
        )
    output.files(("Run", run.folder), ("Next", shlex.join(next_command)))
    return EXIT_DONE


@app.command
def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Evaluate a run and zero-shot CLIP on the test images; without --checkpoint, zero-shot alone.

    Example: clip-har evaluate --data photos --checkpoint runs/lora
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    result, out = commands.evaluate(config, progress=shown_progress(), command=command_line())
    if not speaks():
        return EXIT_DONE
    output = Output()
    output.evaluation(result)
    output.findings(result.findings)
    output.files(("Report", out / "report.html"), ("Tables", out / "results.csv"))
    return EXIT_DONE


@app.command
def compare(config: Annotated[CompareConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Train and evaluate several methods on the same splits, prompts and seeds, with one pretrained model or several.

    Example: clip-har compare --data photos --model ViT-B/32 --methods zero-shot,linear-probe,lora --out out

    With --models ViT-B/32,ViT-B/16 each model is compared, and the exit code is 3 if one of them is missing.
    """
    from clip_har import commands
    from clip_har.console import Output
    from clip_har.report.model_tables import missing_summary

    del config_file
    comparison = commands.compare(config, progress=shown_progress(), command=command_line())
    if not speaks():
        return EXIT_FINDINGS if comparison.models is not None and comparison.models.missing else EXIT_DONE
    output = Output()
    if comparison.models is not None:
        output.compared_models(comparison.models)
        output.files(("Report", config.out / "report.html"), ("Tables", config.out / "models.csv"))
        if missing := missing_summary(comparison.models):
            output.line(missing)
        return EXIT_FINDINGS if missing else EXIT_DONE
    if comparison.few_shot is not None:
        output.few_shot(comparison.few_shot)
        output.files(("Report", config.out / "report.html"), ("Tables", config.out / "few_shot.csv"))
        return EXIT_DONE
    output.comparison(comparison.rows, comparison.results)
    output.files(("Report", config.out / "report.html"), ("Tables", config.out / "comparison.csv"))
    return EXIT_DONE


app.command(sweep)


@app.command
def prompts(config: Annotated[PromptsConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Compare prompt templates and class descriptions on the validation images.

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
def models(
    config: Annotated[ModelsConfig | None, Parameter(name="*")] = None, *, config_file: ConfigFile = None
) -> int:
    """List pretrained models for --model: size, cost, training memory, pretraining data, licence, weights on disk.

    Nothing is downloaded.

    Example: clip-har models --model ViT-B/32,siglip2 --probe
    """
    from clip_har.console import Output
    from clip_har.model_listing import list_models  # not among the commands: it needs no torch

    del config_file
    config = config or ModelsConfig()
    listing = list_models(config, progress=shown_progress())
    if config.json:
        listed = json.dumps(listing.to_json(), indent=2, ensure_ascii=False)
        sys.stdout.write(shown_json(listed) + "\n")
    else:
        Output().models(listing)
    return EXIT_DONE


@app.command
def explain(
    run: Path,
    /,
    *images: Path,
    config: Annotated[ExplainConfig | None, Parameter(name="*")] = None,
    config_file: ConfigFile = None,
) -> int:
    """Explain predictions: saliency maps, prompts, similar training images, confused classes, changes by training.

    Example: clip-har explain runs/lora --data photos

    Args:
        run: Run folder.
        images: Image files to explain, instead of the dataset's most informative test images.
    """
    from clip_har import commands
    from clip_har.console import Output
    from clip_har.images.listing import ImageList

    del config_file
    files = tuple(map(Path, ImageList(images).names()))
    result, folder = commands.explain(
        run, config or ExplainConfig(), files, progress=shown_progress(), command=command_line()
    )
    output = Output()
    output.explanation(result)
    output.files(("Report", folder / "report.html"), ("Tables", folder / "explain.csv"))
    return EXIT_DONE


@app.command
def predict(
    run: Path,
    /,
    *images: str,
    config: Annotated[PredictConfig | None, Parameter(name="*")] = None,
    config_file: ConfigFile = None,
) -> int:
    """Classify images with a trained model.

    Example: clip-har predict runs/lora photo.jpg holiday/*.jpg

    Args:
        run: Run folder.
        images: Image files, folders that are searched for images, quoted patterns such as 'photos/**/*.jpg', URLs such
            as s3://bucket/photos/, and - for a list of paths and URLs on standard input, one per line.

    In a pipe a line per image is printed: image, action, probability, and the next actions, separated by tabs.
    """
    from clip_har.experiment import predict_files
    from clip_har.images.remote import RemoteImage, location

    del config_file
    config, progress = config or PredictConfig(), shown_progress()
    given = tuple(map(location, images))
    paths = [place for place in given if not isinstance(place, RemoteImage)]
    if (code := videos_of_predict(run, paths, config)) is not None:
        return code
    names = sys.stdin.buffer if STANDARD_INPUT in given else None
    if config.out is None:
        from clip_har.cli.printing import print_predictions

        answers = predict_files.predict(run, given, config, standard_input=names, progress=progress)
        counts = print_predictions(answers, config, progress)
    else:
        from clip_har.console import Output

        counts = predict_files.predict_into_file(run, given, config, standard_input=names, progress=progress)
        Output().predicted(counts)
        Output().files(("Predictions", config.out), *((("Sorted", config.sort_into),) if config.sort_into else ()))
    return EXIT_DONE if counts.answered else EXIT_USER_INPUT


app.command(video)
app.command(embed)


@app.command
def serve(
    run: Path,
    /,
    *runs: Path,
    config: Annotated[ServeConfig | None, Parameter(name="*")] = None,
    config_file: ConfigFile = None,
) -> int:
    """Serve trained models over HTTP: a page to try them in a browser, and an API.

    Example: clip-har serve runs/lora

    Args:
        run: Run folder.
        runs: Further run folders, which requests select by name.
    """
    from clip_har.serving.server import serve as serve_runs

    del config_file
    serve_runs((run, *runs), config or ServeConfig(), say=say)
    return EXIT_DONE


@app.command(name="import")
def import_(
    file: Path,
    /,
    config: Annotated[ImportConfig | None, Parameter(name="*")] = None,
    *,
    config_file: ConfigFile = None,
) -> int:
    """Convert a LoRA checkpoint of the predecessor project (clip_lora_best.pt) into a run folder.

    evaluate, predict and explain then accept it like any run, with the same predictions. Code in the file is not run.

    Example: clip-har import clip_lora_best.pt --model ViT-B/32 --data photos --alpha 32 --out runs/imported

    Args:
        file: The checkpoint.
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    config = config or ImportConfig()
    again = _import_command(file, config)
    run = commands.import_checkpoint(file, config, progress=shown_progress(), command=again)
    if not speaks():
        return EXIT_DONE
    lora, figures = run.settings.lora, run.card.validation
    scored = "" if not figures else f", validation accuracy {figures['val_accuracy']:.2%}"
    output = Output()
    output.line(f"lora of rank {lora.rank}, alpha {lora.alpha:g}{scored}")
    target = config.data.data if config.data is not None else Path("FOLDER")
    next_command = ("clip-har", "evaluate", "--data", str(target), "--checkpoint", str(run.folder))
    output.files(("Run", run.folder), ("Next", shlex.join(next_command)))
    return EXIT_DONE


@app.command
def export(
    run: Path, /, config: Annotated[ExportConfig, Parameter(name="*")], *, config_file: ConfigFile = None
) -> int:
    """Export a run to ONNX, open_clip, transformers, PEFT, the Hugging Face Hub or a web page.

    The export is compared with the run on the validation images of the run's dataset (certificate.json).
    Exit code: 0 if the export was written, 3 if its labels differ from the run's too often; then nothing is written.

    Example: clip-har export runs/ridge --format onnx --out ridge-onnx

    Args:
        run: Run folder.
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    exported = commands.export(run, config, progress=shown_progress())
    if config.json:
        sys.stdout.write(shown_json(json.dumps(exported.to_json(), indent=2, ensure_ascii=False)) + "\n")
    elif exported.certificate is not None:
        Output().certificate(exported.certificate)
    if exported.refusal is not None:
        say(f"clip-har: {exported.refusal}")
        return EXIT_FINDINGS
    if not config.json:
        said: list[tuple[str, Path | str]] = [("Export", config.out)]
        if exported.address:
            said.append(("Uploaded to", exported.address))
        if config.format.startswith("web"):
            said.append(("Next", shlex.join(("python", "-m", "http.server", "--directory", str(config.out)))))
        Output().files(*said)
    return EXIT_DONE


def _import_command(file: Path, config: ImportConfig) -> str:
    """The command line as one would type it again, without the flags of where it runs, for the card."""
    data = config.data
    given: dict[str, object] = {"out": config.out, "model": config.backbone.model, "data": data and data.data}
    if data is not None:
        given |= {"manifest": data.manifest, "set-aside": ",".join(data.set_aside or ())}
        fractions = {"val-fraction": data.val_fraction, "test-fraction": data.test_fraction}
        given |= fractions | {"split-seed": data.split_seed}
    given |= {"classes": ",".join(config.classes or ()), "phrasings": config.backbone.phrasings, "rank": config.rank}
    words = ["clip-har", "import", str(file), *(f"--templates={text}" for text in config.backbone.templates)]
    words += [f"--{name}={value}" for name, value in given.items() if value not in (None, "")]
    return shlex.join([*words, *([f"--alpha={config.alpha:g}"] if config.alpha is not None else [])])
