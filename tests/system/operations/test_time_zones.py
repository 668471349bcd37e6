"""A host with zones of its own."""

import importlib.resources
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import Service


@pytest.fixture
def strange_host(tmp_path: Path) -> dict[str, str]:
    """Settings of a service on a host with more zones, and with another idea of Tokyo."""
    utc = Path(str(importlib.resources.files("tzdata"))) / "zoneinfo" / "UTC"
    for name in ("localtime", "Factory", "posixrules", "posix/UTC", "Mars/Olympus", "Asia/Tokyo"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(utc, tmp_path / name)
    return {"PYTHONTZPATH": str(tmp_path)}


def test_a_host_adds_no_zones(strange_host: dict[str, str]) -> None:
    with Service(**strange_host).wait_until() as service, service.client() as client:
        client.put("alice", "1990-05-17")
        for name in ("UTC", "Asia/Tokyo"):
            assert client.request("GET", f"/hello/alice?tz={name}").status == 200
        for name in ("localtime", "Factory", "posixrules", "posix/UTC", "Mars/Olympus"):
            answer = client.request("GET", f"/hello/alice?tz={name}")
            assert answer.status == 400
            assert answer.json["type"] == "/docs#problem-unknown-time-zone"


@pytest.mark.parametrize("name", ["localtime", "Factory", "Mars/Olympus"])
def test_a_host_adds_no_zones_for_the_setting(strange_host: dict[str, str], name: str) -> None:
    with Service(**strange_host, TIMEZONE=name) as service:
        assert service.process.wait(20) == 2
        assert service.log.startswith("hello: TIMEZONE: must be a time zone of the IANA database")


def test_a_host_has_no_say_in_the_rules_of_a_zone(strange_host: dict[str, str]) -> None:
    program = (
        "from datetime import datetime; from hello import time_zones;"
        "print(datetime(2026, 5, 17, tzinfo=time_zones.parse('Asia/Tokyo')).utcoffset())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=strange_host, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("9:00:00\n", "")
