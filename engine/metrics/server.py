"""Answer Prometheus, and probes of health and readiness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from retinart.engine.common.address import Address
from retinart.engine.common.http_server import Handler, HttpServer
from retinart.engine.common.packages import import_package
from retinart.engine.metrics.figures import JobFigures

_TEXT = "text/plain; charset=utf-8"


class MetricsServer(HttpServer):
    """`/metrics`, `/healthz` and `/readyz` of a job, until `close`.

    Probes cannot send a token, so the server asks for none. Choose an address that only your
    monitoring reaches. The answers hold counts, times, class names, and the sources' names without
    passwords.

    Args:
        figures: gives a job's figures as they are now.
        info: what does not change: the version, the model, the runtime.
        address: where.

    Raises:
        BadInput: the address cannot be taken.
        MissingDependency: prometheus_client is not installed.
    """

    def __init__(
        self, figures: Callable[[], JobFigures], info: Mapping[str, str], address: Address
    ) -> None:
        client = check_prometheus()
        from retinart.engine.metrics.collector import JobCollector

        self.figures, self.encoder = figures, client.exposition.choose_encoder
        self.registry = client.CollectorRegistry()
        self.registry.register(JobCollector(figures, info))
        client.ProcessCollector(registry=self.registry)
        super().__init__(address, _Handler, "metrics")
        self.start()

    @property
    def link(self) -> str:
        """What Prometheus scrapes."""
        return f"{self.address.link(self.port).partition('?')[0]}metrics"


def check_prometheus() -> Any:
    """The package `prometheus_client`.

    Raises:
        MissingDependency: it is not installed.
    """
    return import_package(
        "prometheus_client",
        package="prometheus_client",
        extra="metrics",
        purpose="serving metrics",
        fix="Install it again",
    )


class _Handler(Handler):
    """Answers a scrape or a probe."""

    server: MetricsServer

    def do_GET(self) -> None:
        """Send the metrics, or whether the job is well."""
        path, address = urlsplit(self.path).path, self.server.address
        if address.loopback and not address.allows_host(self.headers.get("Host", "")):
            self.refuse(HTTPStatus.MISDIRECTED_REQUEST, "This host name is not served here.")
        elif path == "/metrics":
            encode, kind = self.server.encoder(self.headers.get("Accept", ""))
            self.send(encode(self.server.registry), kind)
        elif path == "/healthz":
            self._probe(self.server.figures().why_unwell)
        elif path == "/readyz":
            ready = self.server.figures().ready
            self._probe("" if ready else "no frame has been through yet, or no source is left")
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "There are /metrics, /healthz and /readyz.")

    def _probe(self, why_not: str) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if why_not else HTTPStatus.OK
        self.send(f"{why_not or 'ok'}\n".encode(), _TEXT, status)
