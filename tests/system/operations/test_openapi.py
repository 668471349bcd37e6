"""schemathesis asks the running service for everything that its description names."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.service import Service

ROOT = Path(__file__).parents[3]
DESCRIPTION = ROOT / "hello/openapi.yaml"


def test_the_service_keeps_to_its_description(tmp_path: Path) -> None:
    with Service().wait_until() as service:
        command = [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(ROOT / "tests/support/schemathesis.toml")),
            # From the file: one that it fetched itself would not be asked for.
            *("run", str(DESCRIPTION), "--url", f"http://127.0.0.1:{service.port}"),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONHASHSEED": "0",
                "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_checks",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # Not because there was nothing to ask.
        paths = yaml.safe_load(DESCRIPTION.read_text("utf-8"))["paths"]
        count = sum(len(item.keys() - {"parameters"}) for item in paths.values())
        assert f"{count} selected / {count} total" in done.stdout
        assert "defect" not in service.log
