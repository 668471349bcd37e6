"""Who is told of what: alertmanager.yaml, by amtool and a real Alertmanager."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import monitoring
from tests.support.alertmanager import (
    AMTOOL,
    CONFIGURATION,
    PROGRAM,
    Alertmanager,
    amtool,
    configuration,
)
from tests.support.monitoring import RUNBOOK
from tests.support.processes import eventually

needs_amtool = pytest.mark.skipif(
    AMTOOL is None, reason="needs amtool (Debian's package prometheus-alertmanager)"
)
needs_alertmanager = pytest.mark.skipif(
    AMTOOL is None or PROGRAM is None,
    reason="needs Alertmanager and amtool (Debian's package prometheus-alertmanager)",
)

RECEIVERS = {"critical": "pager", "warning": "day", "none": "deadman"}

#: What fires, and what nobody is told of meanwhile.
INHIBITED: list[tuple[dict[str, str], set[str]]] = [
    ({"alertname": "HelloErrorBudgetBurnsFast"}, {"HelloErrorBudgetBurnsSlowly"}),
    ({"alertname": "HelloLatencyBudgetBurnsFast"}, {"HelloLatencyBudgetBurnsSlowly"}),
    (
        {"alertname": "HelloNoReadyPod"},
        {
            "HelloPodsMissing",
            "HelloProbeFails",
            "HelloRestarts",
            "HelloRolloutStuck",
            "HelloTrafficGone",
        },
    ),
    ({"alertname": "HelloProbeFails"}, {"HelloTrafficGone"}),
    (
        {"alertname": "HelloPrimaryAway"},
        {"HelloBreakerOpen", "HelloCacheSuspended", "HelloDeadlinesExceeded", "HelloSheds"},
    ),
    (
        {"alertname": "HelloBreakerOpen", "dependency": "cache"},
        {"HelloCacheFails", "HelloCacheSuspended"},
    ),
    (
        {"alertname": "HelloBreakerOpen", "dependency": "replica 2"},
        {"HelloPrimaryReads", "HelloReplicaLags"},
    ),
    ({"alertname": "HelloReplicaLags"}, set()),
]


@needs_amtool
def test_alertmanager_accepts_the_configuration() -> None:
    amtool("check-config", str(CONFIGURATION))


@needs_amtool
@pytest.mark.parametrize("name", monitoring.alerts())
def test_every_alert_reaches_who_is_there_for_it(name: str) -> None:
    severity = monitoring.alerts()[name]["labels"]["severity"]
    labels = [f"alertname={name}", f"severity={severity}", "namespace=test"]
    found = amtool("config", "routes", "test", f"--config.file={CONFIGURATION}", *labels)
    assert found.split()[0] == RECEIVERS[severity]


@needs_amtool
def test_the_watchdog_of_the_chart_and_what_only_inhibits_reach_nobody() -> None:
    for labels in (["alertname=Watchdog", "severity=none"], ["alertname=InfoInhibitor"]):
        found = amtool("config", "routes", "test", f"--config.file={CONFIGURATION}", *labels)
        assert found.split()[0] == "nobody"


def test_inhibitions_name_alerts_that_there_are() -> None:
    named = set(re.findall(r"Hello\w+", str(configuration())))
    assert named <= monitoring.alerts().keys()
    for rule in configuration()["inhibit_rules"]:
        assert rule["equal"] == ["namespace"]


def test_no_secret_is_in_the_configuration() -> None:
    def fields(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from fields(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from fields(inner)

    secret = {"routing_key", "service_key", "api_url", "smtp_auth_password", "password"}
    assert not secret & set(fields(configuration()))


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[Alertmanager]:
    with Alertmanager() as alertmanager:
        yield alertmanager.wait_until()


@needs_alertmanager
@pytest.mark.parametrize(("source", "expected"), INHIBITED, ids=lambda value: str(len(value)))
def test_what_follows_from_an_alert_is_not_told(
    alertmanager: Alertmanager, source: dict[str, str], expected: set[str], request: Any
) -> None:
    # In a namespace of its own: others are not concerned.
    namespace = request.node.name
    # What inhibits on its own account is left out, unless it is inhibited.
    sources = {labels["alertname"] for labels, _ in INHIBITED if "dependency" not in labels}
    names = {name for name in monitoring.alerts() if name not in sources - expected}
    fired = [{"alertname": name, "namespace": namespace} for name in names - {source["alertname"]}]
    alertmanager.fire(*fired, source | {"namespace": namespace})

    def quiet() -> set[str]:
        return {alert for alert, where in alertmanager.quiet() if where == namespace}

    eventually(lambda: quiet() == expected, within=30)
    shown = [a for a in alertmanager.alerts() if a["labels"]["namespace"] == namespace]
    assert len(shown) == len(fired) + 1


def _silences() -> list[str]:
    """The commands of the runbook that silence something."""
    blocks = re.findall(r"^```sh\n(.*?)^```", RUNBOOK.read_text(), re.M | re.S)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("amtool ")]


@needs_alertmanager
def test_the_silences_of_the_runbook_silence_what_they_say(alertmanager: Alertmanager) -> None:
    adding, *others = _silences()
    [namespace] = re.findall(r"namespace=(\S+)", adding)
    alertmanager.fire(
        {"alertname": "HelloPrimaryAway", "namespace": namespace, "severity": "critical"},
        {"alertname": "HelloNoReadyPod", "namespace": namespace, "severity": "critical"},
        {"alertname": "HelloPrimaryAway", "namespace": "another", "severity": "critical"},
    )
    eventually(lambda: len(alertmanager.alerts()) >= 3, within=30)

    def run(command: str, **values: str) -> str:
        for name, value in {"$ALERTMANAGER": alertmanager.url, **values}.items():
            command = command.replace(name, value)
        return amtool(*shlex.split(command)[1:])

    silence = run(adding).strip()
    eventually(
        lambda: alertmanager.quiet().get(("HelloPrimaryAway", namespace)) == "silenced", within=30
    )
    quiet = alertmanager.quiet()
    assert ("HelloNoReadyPod", namespace) not in quiet
    assert ("HelloPrimaryAway", "another") not in quiet
    query, expire = others
    assert silence in run(query)
    run(expire, **{"$SILENCE": silence})
    eventually(lambda: ("HelloPrimaryAway", namespace) not in alertmanager.quiet(), within=30)
