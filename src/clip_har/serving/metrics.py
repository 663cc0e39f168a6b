"""What Prometheus reads at /metrics: requests, images, batches, the queue, and drift."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clip_har.predict import Prediction
from clip_har.serving.drift import DriftWatch

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of one server; its own registry, so that several may live in one process.

    Args:
        in_flight: images that are accepted and not yet answered.
        replaced: decoding processes that were replaced.
        watches: model -> its drift watch, for those whose card has calibration data.
    """

    def __init__(
        self, *, in_flight: Callable[[], int], replaced: Callable[[], int], watches: Mapping[str, DriftWatch]
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "clip_har_requests", "Requests by path and HTTP status.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "clip_har_request_seconds", "Seconds from a request's start to its answer.", ["path"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.images = Counter(
            "clip_har_images", "Images by model and outcome: answered, unsure, unknown, unreadable.",
            ["model", "outcome"], registry=self._registry,
        )  # fmt: skip
        self.batches = Histogram(
            "clip_har_batch_images", "Images per forward pass.", ["model"], buckets=SIZES, registry=self._registry
        )
        self.batch_seconds = Histogram(
            "clip_har_batch_seconds", "Seconds per forward pass.", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_Live(in_flight, replaced, watches))

    def count(self, model: str, prediction: Prediction) -> None:
        """Count an image by its outcome."""
        outcome = "unreadable" if prediction.error is not None else "answered"
        if prediction.unsure or prediction.unknown:
            outcome = "unsure" if prediction.unsure else "unknown"
        self.images.labels(model, outcome).inc()

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _Live(Collector):
    """What is read when it is asked for."""

    def __init__(
        self, in_flight: Callable[[], int], replaced: Callable[[], int], watches: Mapping[str, DriftWatch]
    ) -> None:
        self._in_flight, self._replaced, self._watches = in_flight, replaced, watches

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "clip_har_images_in_flight", "Images accepted and not yet answered.", value=self._in_flight()
        )
        yield CounterMetricFamily(
            "clip_har_decoders_replaced", "Decoding processes that died and were replaced.", value=self._replaced()
        )
        gauges = [
            ("confidence_mean", "Mean calibrated confidence of the last 1000 predictions."),
            ("validation_confidence_mean", "Mean calibrated confidence on the run's validation images."),
            ("unsure_fraction", "Fraction of the last 1000 predictions without a label."),
            ("validation_unsure_fraction", "Fraction of the run's validation images without a label."),
            ("drift", "1 if the last predictions differ from validation by more than chance explains, otherwise 0."),
        ]
        families = {name: GaugeMetricFamily(f"clip_har_{name}", text, labels=["model"]) for name, text in gauges}
        for model, watch in self._watches.items():
            found, expected = watch.observed(), watch.expected
            families["confidence_mean"].add_metric([model], found.confidence)
            families["validation_confidence_mean"].add_metric([model], expected.confidence)
            families["unsure_fraction"].add_metric([model], found.unsure)
            families["validation_unsure_fraction"].add_metric([model], expected.unsure)
            families["drift"].add_metric([model], float(watch.drifted()))
        yield from families.values()
