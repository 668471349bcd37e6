"""A real Prometheus, from Debian's package `prometheus`."""

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import end, eventually, free_port

INSTALLED = shutil.which("prometheus") is not None


class Prometheus:
    """It scrapes `ports` of this machine every `interval` seconds, as the job `revolut`.

    Each port is a pod of the namespace `test`, as the PodMonitor would have it. `rules` is
    what a file of rules says. `others` are the ports of further jobs.
    """

    def __init__(
        self,
        ports: Sequence[int],
        rules: dict | None = None,
        interval: int = 1,
        others: Mapping[str, int] | None = None,
    ) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="hello-prometheus-")
        directory = Path(self._directory.name)
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "test", "pod": f"pod-{n}"}}
            for n, port in enumerate(ports)
        ]
        jobs = [{"job_name": "revolut", "static_configs": targets}]
        for job, port in (others or {}).items():
            jobs.append({"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]})
        (directory / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}))
        (directory / "prometheus.yaml").write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": f"{interval}s",
                        "scrape_timeout": f"{interval}s",
                        "evaluation_interval": f"{interval}s",
                    },
                    "rule_files": ["rules.yaml"],
                    "scrape_configs": jobs,
                }
            )
        )
        self._log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until(self) -> "Prometheus":
        """Wait until it answers."""

        def answers() -> bool:
            log = Path(self._log.name)
            assert self.process.poll() is None, f"Prometheus ended:\n{log.read_text()}"
            try:
                self.get("query", query="1")
            except OSError:
                return False
            return True

        eventually(answers, within=60)
        return self

    def get(self, path: str, **parameters: str) -> Any:
        """What its API says. A query that it does not accept is an AssertionError."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as ex:
            if ex.code == 503:
                raise OSError("not ready") from ex
            raise AssertionError(f"{parameters}: {ex.read().decode()}") from ex

    def query(self, expr: str) -> list[dict]:
        """The series of an expression, now."""
        series: list[dict] = self.get("query", query=expr)["result"]
        return series

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            end(self.process)
        finally:
            self._log.close()
            self._directory.cleanup()
