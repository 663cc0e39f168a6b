"""How results look in a terminal. They go to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from clip_har import wording
from clip_har.console import model_tables, sweep_tables, tables, video_tables
from clip_har.console.table import ShownTable
from clip_har.shown_text import shown

if TYPE_CHECKING:  # only for annotations: `predict` need not wait for scikit-learn
    from clip_har.audit.records import Audit, Finding
    from clip_har.embedding.command import CheckedFiles
    from clip_har.embedding.encoding import EmbeddingCounts
    from clip_har.evaluation import ComparisonRow, EvalResult, Evaluated
    from clip_har.evaluation.few_shot import FewShotTable
    from clip_har.evaluation.findings import Confidence, ExplainResult, Findings, PromptTrial
    from clip_har.evaluation.model_comparison import ModelTable
    from clip_har.evaluation.sweep import SweepTable
    from clip_har.exporting.certificate import Certificate
    from clip_har.model_listing import ModelListing
    from clip_har.predict import Prediction, PredictionCounts
    from clip_har.video import LivePrediction, VideoPrediction

PIPED_WIDTH = 120


class Output:
    """Results on standard output."""

    def __init__(self) -> None:
        piped = None if sys.stdout.isatty() else PIPED_WIDTH  # rich takes 80 columns where there is no terminal
        self._console = Console(highlight=False, soft_wrap=True, width=piped)

    def line(self, text: str) -> None:
        """One line of text."""
        self._console.print(Text(shown(text)))

    def comparison(self, rows: Sequence[ComparisonRow], results: Mapping[str, EvalResult]) -> None:
        """A row per method, with its interval, cost and p against zero-shot; then what each gain is worth."""
        from clip_har.report import comparison_tables, standing  # here: `predict` need not wait for matplotlib

        first = next(iter(results.values()))
        level = standing.zero_shot_level(rows, results)
        title = f"{first.n:,} {first.split} images, {len(first.classes)} classes{_seeds_text(rows)}"
        table = ShownTable(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("method", overflow="fold")
        for name in ("accuracy", "95 % interval", "macro F1", "trained", "share", "time", "memory", "p"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            where = standing.standing(row, level)
            accuracy, *cells = _comparison_cells(row, comparison_tables.largest_memory(rows))
            colour = "bold red" if where in standing.LOUD else "bold green" if where == standing.ABOVE else ""
            table.add_row(Text(row.name), Text(accuracy, style=colour), *cells)
        self._console.print(table)
        if (unseen := tables.unseen_columns(rows)) is not None:
            self._console.print(unseen)
        for line in standing.verdict_lines(rows, level):
            loud = any(said in line for said in standing.LOUD.values())
            self._console.print(Text(shown(line), style="bold red" if loud else ""))

    def few_shot(self, found: FewShotTable) -> None:
        """A row per method, a column per number of training images per class."""
        self._console.print(tables.few_shot(found))

    def compared_models(self, found: ModelTable) -> None:
        """A row per model and method, then what could not be compared and why."""
        for part in tables.compared_models(found):
            self._console.print(part)

    def sweep(self, found: SweepTable) -> None:
        """The best trials, then what the best of them is worth."""
        if found.best is not None:
            self._console.print(sweep_tables.sweep_table(found))
        for line in sweep_tables.sweep_lines(found):
            self.line(line)

    def evaluation(self, result: EvalResult) -> None:
        """Zero-shot and the run side by side."""
        models = [result.baseline, *([result.finetuned] if result.finetuned else [])]
        table = ShownTable(title=f"{result.n:,} {result.split} images, {len(result.classes)} classes")
        table.add_column("metric")
        for model in models:
            table.add_column(model.name, justify="right")
        for label, values in _metric_rows(models):
            table.add_row(label, *values)
        self._console.print(table)
        if result.finetuned and result.mcnemar_p is not None:
            gain = result.finetuned.metrics.accuracy - result.baseline.metrics.accuracy
            points = f"{100 * gain:+.2f} percentage points over zero-shot"
            self.line(f"{result.finetuned.name}: {points}, McNemar p {p_text(result.mcnemar_p)}")
        confidence = result.confidence_finetuned or result.confidence_baseline
        if confidence is not None:
            self.line(f"{result.best.name}: {_confidence_text(confidence)}")

    def findings(self, findings: Findings) -> None:
        """A table for each thing found beyond the metrics."""
        for table in tables.tables(findings):
            self._console.print(table)

    def explanation(self, result: ExplainResult) -> None:
        """A row per explained image; confused classes; what training changed."""
        for table in tables.explanation_tables(result):
            self._console.print(table)

    def prompts(self, trial: PromptTrial) -> None:
        """A row per wording, best first, then what the best changes for each class."""
        for table in tables.prompt_tables(trial):
            self._console.print(table)

    def models(self, listing: ModelListing) -> None:
        """Size and cost of each model, where its weights come from, and what the columns mean."""
        for table in model_tables.model_tables(listing):
            self._console.print(table)
        for line in model_tables.model_notes(listing):
            self.line(line)

    def certificate(self, certificate: Certificate) -> None:
        """An export and its run side by side."""
        self._console.print(tables.certificate(certificate))
        if certificate.fitted_on_images:
            self.line(
                "The run was also fitted on these images (--refit): on new ones, accuracy and agreement are lower."
            )

    def audit(self, audit: Audit) -> None:
        """Images per class and split, then a row per check with an example."""
        counts = audit.counts()
        table = ShownTable(title=f"{len(audit.files):,} images", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("class", overflow="fold")
        for split in counts:
            table.add_column(split, justify="right")
        for label in next(iter(counts.values()), {}):
            table.add_row(Text(label), *(f"{own[label]:,}" for own in counts.values()))
        self._console.print(table)
        checks = ShownTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in ("check", "found", "limit", "example"):
            right = name in ("found", "limit")
            checks.add_column(name, justify="right" if right else "left", overflow="fold")
        for check in audit.checks:
            found = audit.of(check.name)
            colour = "bold red" if check.above else ""
            checks.add_row(
                Text(check.name.replace("_", " "), style=colour),
                Text(f"{check.found:,}" if check.performed else "-", style=colour),
                "none" if check.limit is None else f"{check.limit:,}",
                Text(_finding_text(found[0]) if found else "" if check.performed else "needs a model"),
            )
        self._console.print(checks)

    def predictions(self, predictions: Sequence[Prediction]) -> None:
        """A row per image that could be read."""
        answered = [prediction for prediction in predictions if prediction.error is None]
        if not answered:
            return
        sets = any(prediction.possible is not None for prediction in answered)
        judged = sets or any(prediction.unsure or prediction.unknown for prediction in answered)
        added = (*(("confidence",) if judged else ()), *(("possible",) if sets else ()))
        table = ShownTable()
        for name in ("image", "action", "probability", *added, "next"):
            right = name in ("probability", "confidence")
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for prediction in answered:
            withheld = wording.withheld(unsure=prediction.unsure, unknown=prediction.unknown)
            others = prediction.top if withheld else prediction.top[1:]
            rest = ", ".join(f"{label} {probability:.1%}" for label, probability in others)
            possible = ", ".join(prediction.possible or ()) or "none is likely enough"
            confidence = prediction.probability if prediction.confidence is None else prediction.confidence
            trust = [*([f"{confidence:.1%}"] if judged else []), *([escape(possible)] if sets else [])]
            table.add_row(
                escape(prediction.image),
                Text(withheld, style="italic") if withheld else escape(prediction.label or ""),
                f"{prediction.probability:.1%}",
                *trust,
                escape(rest),
            )
        self._console.print(table)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads it, and not another program or a file."""
        return self._console.is_terminal

    def prediction(self, answer: Prediction) -> None:
        """One answer as a line of tab-separated fields, for another program."""
        withheld = wording.withheld(unsure=answer.unsure, unknown=answer.unknown)
        others = answer.top if withheld else answer.top[1:]
        fields = [answer.image, withheld or answer.label or "", f"{answer.probability:.4f}"]
        fields += [] if answer.possible is None else [",".join(answer.possible)]
        fields += [f"{label} {probability:.4f}" for label, probability in others]
        sys.stdout.write("\t".join(map(shown, fields)) + "\n")

    def predicted(self, counts: PredictionCounts) -> None:
        """What a file of predictions holds."""
        withheld = [f"{counts.unsure:,} unsure"] if counts.unsure else []
        withheld += [f"{counts.unknown:,} none of these"] if counts.unknown else []
        said = [
            f"{counts.answered:,} classified ({', '.join(withheld)})" if withheld else f"{counts.answered:,} classified"
        ]
        said += [f"{counts.unreadable:,} unreadable"] if counts.unreadable else []
        said += [f"{counts.before:,} of them by an earlier command"] if counts.before else []
        self.line(f"{counts.answered + counts.unreadable:,} images: {', '.join(said)}")

    def timeline(self, prediction: VideoPrediction) -> None:
        """A row per span of a video; in a pipe, a line."""
        if self.is_terminal:
            self._console.print(video_tables.timeline_table(prediction))
        else:
            sys.stdout.write(video_tables.timeline_lines(prediction))

    def live(self, answer: LivePrediction) -> None:
        """What a camera shows now."""
        if self.is_terminal:
            self.line(video_tables.live_line(answer))
        else:
            sys.stdout.write(video_tables.live_fields(answer))

    def embedded(self, counts: EmbeddingCounts, out: Path) -> None:
        """What a command for embeddings did, and how much of the whole is there."""
        said = [f"{counts.embedded:,} embedded"]
        said += [f"{counts.unreadable:,} unreadable"] if counts.unreadable else []
        said += [f"{counts.earlier:,} of them by an earlier command"] if counts.earlier else []
        said += [f"{counts.locked:,} files left to another process"] if counts.locked else []
        part = f"Part {counts.part}: " if counts.part else ""
        self.line(f"{part}{counts.embedded + counts.unreadable:,} images: {', '.join(said)}")
        self.line(f"{part}{counts.present:,} of {counts.shards:,} files are in {out}")
        if counts.present < counts.shards:
            self.line(f"{part}The others are written by the other parts, or by the same command without --part")

    def checked_embeddings(self, found: CheckedFiles) -> None:
        """Which files of embeddings are complete."""
        for path in found.damaged:
            self.line(f"damaged: {path}")
        self.line(
            f"{found.complete:,} of {found.shards:,} files are complete, with {found.images:,} images"
            + (f", {found.unreadable:,} of them unreadable" if found.unreadable else "")
        )
        if found.complete < found.shards:
            self.line(
                f"{found.missing:,} are missing and {len(found.damaged):,} damaged: the same command without --check "
                "and --part writes them"
            )

    def files(self, *entries: tuple[str, Path | str]) -> None:
        """What to look at or type next."""
        width = max(len(label) for label, _ in entries)
        for label, target in entries:
            self.line(f"{label.ljust(width)}  {target}")


def _finding_text(finding: Finding) -> str:
    """A finding on a line or two: its files, and why."""
    named = ", ".join(file.name for file in finding.files[:2])
    more = f" and {len(finding.files) - 2} more" if len(finding.files) > 2 else ""
    return f"{named}{more}: {finding.why}" if named else finding.why


def p_text(p: float) -> str:
    """A p-value as one reads it: "< 0.001", "0.004", "0.35"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _confidence_text(confidence: Confidence) -> str:
    """What temperature scaling gives, and how often the 90 % prediction sets contain the true class."""
    before = f"{confidence.ece_before:.3f}"
    text = f"temperature 1, because scaling gives no significant improvement (calibration error {before})"
    if confidence.temperature != 1:
        after = f"{confidence.ece_after:.3f}"
        text = f"temperature {confidence.temperature:.2f} changes the calibration error from {before} to {after}"
    sets = next((entry for entry in confidence.conformal if entry.level == 0.9), None)
    if sets is None:
        return text
    return (
        f"{text}; 90 % prediction sets contain the true class for {sets.coverage:.1%} of images "
        f"and have {sets.mean_size:.1f} classes on average"
    )


def _seeds_text(rows: Sequence[ComparisonRow]) -> str:
    """What ± means, where it occurs."""
    seeds = sorted({seed for row in rows if len(row.seeds) > 1 for seed in row.seeds})
    if not seeds:
        return ""
    return f"; mean ± standard deviation over seeds {', '.join(map(str, seeds))}"


def _comparison_cells(row: ComparisonRow, memory: int) -> list[str]:
    low, high = row.accuracy_ci95
    spread = "" if row.accuracy_std is None else f" ± {100 * row.accuracy_std:.2f}"
    return [
        f"{100 * row.accuracy:.2f}{spread} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{row.macro_f1:.3f}",
        f"{row.trainable_params:,}" if row.trainable_params else "-",
        _share_text(row.trainable_fraction) if row.trainable_params else "-",
        tables.time_text(row.train_seconds) if row.train_seconds else "-",
        wording.size(row.peak_memory_bytes, memory) if row.peak_memory_bytes else "-",
        "-" if row.mcnemar_p is None else p_text(row.mcnemar_p),
    ]


def _share_text(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.1 else f"{100 * fraction:.2g}%"


def _metric_rows(models: Sequence[Evaluated]) -> Iterator[tuple[str, list[str]]]:
    metrics = [model.metrics for model in models]
    yield "accuracy", [f"{m.accuracy:.2%}" for m in metrics]
    yield "95 % interval", [f"{m.accuracy_ci95[0]:.1%} to {m.accuracy_ci95[1]:.1%}" for m in metrics]
    yield "top-3 accuracy", [f"{m.top3_accuracy:.2%}" for m in metrics]
    yield "top-5 accuracy", [f"{m.top5_accuracy:.2%}" for m in metrics]
    yield "macro precision", [f"{m.macro_precision:.4f}" for m in metrics]
    yield "macro recall", [f"{m.macro_recall:.4f}" for m in metrics]
    yield "macro F1", [f"{m.macro_f1:.4f}" for m in metrics]
    yield "weighted F1", [f"{m.weighted_f1:.4f}" for m in metrics]
    yield "mean average precision", [f"{m.mean_average_precision:.4f}" for m in metrics]
    yield "log loss", [f"{m.log_loss:.4f}" for m in metrics]
    yield "Brier score", [f"{m.brier:.4f}" for m in metrics]
    yield "calibration error", [f"{m.ece:.4f}" for m in metrics]
