"""The command `metrics`: an exporter for Prometheus, of which there may be any number."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from diarization.errors import QueueUnavailable
from tasks.commands.console import complain
from tasks.commands.output import print_line
from tasks.server import connect
from tasks.settings import Settings, current_settings

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

    from tasks.metrics import Metric, Samples

logger = logging.getLogger(__name__)


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 9808,
) -> None:
    """Serve the fleet's metrics to Prometheus, at /metrics, until Ctrl-C."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - of no use to other commands
    except ImportError:
        complain("not_installed", "the exporter comes with an extra: pip install 'diarize-queue[metrics]'")
        raise typer.Exit(1) from None
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exporter(current_settings()))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        complain("port_taken", f"cannot listen on {host} port {port}: {error.strerror}")
        raise typer.Exit(1) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print_line(f"metrics at http://{host}:{server.server_port}/metrics")
    stop.wait()
    server.shutdown()
    thread.join()


class Exporter:
    """A collector of prometheus-client: reads Redis at each scrape, and outlives its outages."""

    def __init__(self, settings: Settings) -> None:
        from tasks.metrics import Readings  # noqa: PLC0415 - Celery takes half a second to import

        self._readings = Readings(connect(settings, patient=False), settings)
        self._lock = threading.Lock()
        self._away = False

    def collect(self) -> Iterator[Family]:
        """prometheus-client's hook."""
        from tasks.metrics import METRICS, UP  # noqa: PLC0415

        samples: Samples
        with self._lock:
            try:
                samples = self._readings.read()
            except QueueUnavailable as error:
                if not self._away:
                    logger.warning("there are no metrics for now: %s", error.message)
                self._away, samples = True, {UP.name: {(): 0.0}}
            else:
                if self._away:
                    logger.info("Redis is there again")
                self._away = False
        for metric in METRICS:
            if metric.name in samples:
                yield _family(metric, samples)


def _family(metric: Metric, samples: Samples) -> Family:
    from prometheus_client.core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    values = samples[metric.name]
    if metric.kind == "histogram":
        buckets = [(labels[0], value) for labels, value in values.items() if labels != ("sum",)]
        return HistogramMetricFamily(metric.name, metric.means, buckets=buckets, sum_value=values[("sum",)])
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.means, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
