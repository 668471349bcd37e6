"""schemathesis asks the running service for everything that its description names."""

import os
import subprocess
import sys
from pathlib import Path

from tests.system.service import Service

ROOT = Path(__file__).parents[2]


def test_the_service_keeps_to_its_description(tmp_path: Path) -> None:
    with Service(PYTHONWARNINGS="error").wait_until() as service:
        command = [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(ROOT / "tests/system/schemathesis.toml")),
            *("run", f"http://127.0.0.1:{service.port}/openapi.json"),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONHASHSEED": "0",
                "SCHEMATHESIS_HOOKS": "tests.system.schemathesis_checks",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # Not because there was nothing to ask.
        assert "30 selected / 30 total" in done.stdout
        assert "defect" not in service.log
