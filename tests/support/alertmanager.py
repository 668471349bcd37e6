"""A real Alertmanager, from Debian's package `prometheus-alertmanager`, and its `amtool`."""

import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.support.monitoring import MONITORING
from tests.support.processes import end, eventually, free_port

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
AMTOOL = shutil.which("amtool")
CONFIGURATION = MONITORING / "alertmanager.yaml"


def configuration() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    return read


def amtool(*arguments: str) -> str:
    """What amtool prints; it must succeed."""
    assert AMTOOL is not None
    done = subprocess.run([AMTOOL, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Alertmanager:
    """It has the configuration's routes and inhibitions, and receivers that tell nobody."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="hello-alertmanager-")
        directory = Path(self._directory.name)
        given = configuration()
        given["receivers"] = [{"name": receiver["name"]} for receiver in given["receivers"]]
        (directory / "alertmanager.yaml").write_text(yaml.safe_dump(given))
        self._log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={directory / 'alertmanager.yaml'}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until(self) -> "Alertmanager":
        """Wait until it answers."""

        def answers() -> bool:
            log = Path(self._log.name)
            assert self.process.poll() is None, f"Alertmanager ended:\n{log.read_text()}"
            try:
                self.alerts()
            except OSError:
                return False
            return True

        eventually(answers, within=60)
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fire(self, *alerts: dict[str, str]) -> None:
        """Send alerts, by their labels."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps([{"labels": labels} for labels in alerts]).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()

    def alerts(self) -> list[dict]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=30) as response:
            found: list[dict] = json.load(response)
        return found

    def quiet(self) -> dict[tuple[str, str], str]:
        """The alerts that nobody is told of, by name and namespace: `inhibited` or `silenced`."""
        return {
            (alert["labels"]["alertname"], alert["labels"]["namespace"]): (
                "silenced" if status["silencedBy"] else "inhibited"
            )
            for alert in self.alerts()
            if (status := alert["status"])["state"] == "suppressed"
        }

    def __enter__(self) -> "Alertmanager":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            end(self.process)
        finally:
            self._log.close()
            self._directory.cleanup()
