"""The alert rules, the dashboard and the runbook, read for the tests."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import promql_parser as promql
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "monitoring"
RUNBOOK = ROOT / "docs" / "runbook.md"

#: What Prometheus, kube-state-metrics and the blackbox exporter have to say, and not the service.
FOREIGN = {
    "ALERTS",
    "up",
    "kube_deployment_spec_replicas",
    "kube_deployment_status_condition",
    "kube_deployment_status_replicas_available",
    "kube_deployment_status_replicas_ready",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_spec_min_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_status_desired_replicas",
    "kube_node_labels",
    "kube_pod_container_resource_requests",
    "kube_pod_container_status_restarts_total",
    "kube_pod_info",
    "probe_ssl_earliest_cert_expiry",
    "probe_success",
}

#: What Grafana puts in.
VARIABLES = {"$namespace": ".*", "$__rate_interval": "1m", "$max_connections": "840"}


@cache
def rules_spec() -> dict:
    """What Prometheus reads: the groups, out of the operator's object."""
    spec: dict = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    return spec


def rules() -> list[dict]:
    return [rule for group in rules_spec()["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


@cache
def dashboard() -> dict:
    read: dict = json.loads((MONITORING / "dashboard.json").read_text())
    return read


def panels() -> dict[str, list[str]]:
    """The expressions of each panel, by its title, as Grafana would ask them."""
    return {
        panel["title"]: [_substituted(target["expr"]) for target in panel["targets"]]
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }


@cache
def expressions() -> dict[str, str]:
    """Every expression, by where it is."""
    found = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    found |= {f"record {name}": expr for name, expr in records().items()}
    for title, targets in panels().items():
        found |= {f"panel {title}, {n}": expr for n, expr in enumerate(targets)}
    for annotation in dashboard()["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = _substituted(annotation["expr"])
    return found


def _substituted(expr: str) -> str:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


class Selector(NamedTuple):
    """What an expression wants of one metric."""

    metric: str
    #: (label, operator, value)
    matchers: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        inside = ", ".join(
            f"{label}{operator}{json.dumps(v)}" for label, operator, v in self.matchers
        )
        return f"{self.metric}{{{inside}}}"


_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


def selectors(expr: str) -> Iterator[Selector]:
    """Every selector of an expression. Raises ValueError if it is no PromQL."""
    found: list[Selector] = []

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            matchers = tuple(
                (m.name, _OPERATORS[str(m.op).rsplit(".", 1)[-1]], m.value)
                for m in node.matchers.matchers
            )
            found.append(Selector(node.name or "", matchers))
        return True

    promql.walk(promql.parse(expr), visit)
    yield from found


def used() -> dict[str, set[Selector]]:
    """What each metric of the service is asked for, by its name."""
    found: dict[str, set[Selector]] = {}
    for expr in expressions().values():
        for selector in selectors(expr):
            if selector.metric not in FOREIGN | records().keys():
                found.setdefault(selector.metric, set()).add(selector)
    return found


def anchors(markdown: str) -> dict[str, str]:
    """The text of each heading, by the anchor that GitHub gives it."""
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    fenced = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        heading = re.match(r"#{1,6} +(.*?)\s*#*$", line)
        if heading and not fenced:
            text = heading[1].replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = seen[anchor]
            seen[anchor] += 1
            found[f"{anchor}-{number}" if number else anchor] = text
    return found


def entries(section: str = "Alerts") -> dict[str, str]:
    """What the runbook says of each alert, by its heading in a section."""
    _, _, rest = RUNBOOK.read_text().partition(f"\n## {section}\n")
    text = re.split(r"\n## ", rest)[0]
    parts = re.split(r"\n### ", text)[1:]
    return {part.partition("\n")[0].strip(): part.partition("\n")[2] for part in parts}
