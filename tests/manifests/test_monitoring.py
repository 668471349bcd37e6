"""The alert rules, the dashboard and the runbook: each is right, and they agree."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support import monitoring
from tests.support.monitoring import MONITORING, ROOT, RUNBOOK
from tests.support.programs import find

RULES_TEST = Path(__file__).with_name("rules_test.yaml")
WEEKS_TEST = Path(__file__).with_name("weeks_test.yaml")

#: The parts of an entry of the runbook.
PARTS = ("Symptom", "For users", "Look", "Do")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)"
)
KUBECTL = find("kubectl")


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    """The rules as promtool and Prometheus read them, beside their tests."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(monitoring.rules_spec()))
    shutil.copy(RULES_TEST, tmp_path)
    shutil.copy(WEEKS_TEST, tmp_path)
    wanted = yaml.safe_load(WEEKS_TEST.read_text())["group_eval_order"]
    groups = {group["name"]: group for group in monitoring.rules_spec()["groups"]}
    weeks = {"groups": [groups[name] for name in wanted]}
    path.with_name("weeks.yaml").write_text(yaml.safe_dump(weeks))
    return path


def _promtool(*arguments: str, directory: Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=directory, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_the_rules(rules_file: Path) -> None:
    _promtool("check", "rules", rules_file.name, directory=rules_file.parent)


@needs_promtool
@pytest.mark.parametrize("tests", [RULES_TEST, WEEKS_TEST], ids=lambda path: path.stem)
def test_alerts_fire_where_they_must_and_nowhere_else(rules_file: Path, tests: Path) -> None:
    _promtool("test", "rules", tests.name, directory=rules_file.parent)


def test_every_alert_is_tested() -> None:
    # In a test where it fires: an empty list of alerts would test nothing.
    document = yaml.safe_load(RULES_TEST.read_text())
    weeks = yaml.safe_load(WEEKS_TEST.read_text())
    fired = set()
    for test in [*document["tests"], *weeks["tests"]]:
        for case in test.get("promql_expr_test", []):
            for sample in case["exp_samples"]:
                fired |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
        for case in test.get("alert_rule_test", []):
            if case["exp_alerts"]:
                fired.add(case["alertname"])
    assert fired == monitoring.alerts().keys()
    groups = [group["name"] for group in monitoring.rules_spec()["groups"]]
    assert document["group_eval_order"] == groups


@pytest.mark.parametrize("where", monitoring.expressions())
def test_every_expression_is_promql(where: str) -> None:
    expr = monitoring.expressions()[where]
    # A constant asks for nothing.
    constant = re.fullmatch(r"vector\(\d+\)\s*", expr)
    assert bool(list(monitoring.selectors(expr))) == (constant is None)


def test_every_record_that_is_used_is_recorded() -> None:
    names = {
        selector.metric
        for expr in monitoring.expressions().values()
        for selector in monitoring.selectors(expr)
    }
    assert {name for name in names if ":" in name} <= monitoring.records().keys()


@pytest.mark.parametrize("name", monitoring.alerts())
def test_every_alert_says_what_a_person_needs(name: str) -> None:
    rule = monitoring.alerts()[name]
    assert rule["labels"]["severity"] in (
        ("none",) if name == "HelloWatchdog" else ("critical", "warning")
    )
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page.endswith(f"/{RUNBOOK.relative_to(ROOT)}")
    assert monitoring.anchors(RUNBOOK.read_text())[anchor] == name


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    assert monitoring.entries().keys() == monitoring.alerts().keys()


@pytest.mark.parametrize("name", monitoring.entries())
def test_every_entry_has_its_parts(name: str) -> None:
    text = monitoring.entries()[name]
    bold = re.findall(r"^\*\*([^*.]+)\.\*\*", text, re.M)
    assert tuple(bold) == PARTS
    assert monitoring.alerts()[name]["labels"]["severity"] in text


def test_queries_of_the_runbook_are_promql_on_known_metrics() -> None:
    known = monitoring.used().keys() | monitoring.records().keys() | monitoring.FOREIGN
    blocks = re.findall(r"^```promql\n(.*?)^```", RUNBOOK.read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        for query in block.strip().split("\n\n"):
            for selector in monitoring.selectors(query):
                assert selector.metric in known


@pytest.mark.parametrize("name", ["runbook", "slo", "disaster-recovery", "privacy"])
def test_links_of_what_people_read_in_trouble_lead_somewhere(name: str) -> None:
    page = RUNBOOK.with_name(f"{name}.md")
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text())
    assert links
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in monitoring.anchors(target.read_text()), f"{path}#{anchor}"


def test_anchors_are_those_of_github() -> None:
    markdown = "# A Title\n## `code`, and more!\n## Twice\n## Twice\n```\n# no heading\n```\n"
    assert list(monitoring.anchors(markdown)) == ["a-title", "code-and-more", "twice", "twice-1"]


def test_the_panels_do_not_overlap() -> None:
    taken = set()
    for panel in monitoring.dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken
                taken.add((x, y))
    ids = [panel["id"] for panel in monitoring.dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_admin_port_is_scraped_and_not_exposed() -> None:
    def read(*path: str) -> dict:
        return yaml.safe_load((ROOT / "manifests").joinpath(*path).read_text())

    container = read("base", "deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    spec = read("monitoring", "podmonitor.yaml")["spec"]
    [endpoint] = spec["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    assert ports["metrics"] == 9090
    [exposed] = read("base", "service.yaml")["spec"]["ports"]
    assert exposed["targetPort"] not in ("metrics", 9090)
    labels = read("base", "kustomization.yaml")["labels"][0]
    assert spec["selector"]["matchLabels"] == labels["pairs"]
    # Rules and dashboard know the job by the value of that label.
    assert spec["jobLabel"] in labels["pairs"]
    jobs = {
        value
        for expr in monitoring.expressions().values()
        for selector in monitoring.selectors(expr)
        for label, _, value in selector.matchers
        if label == "job"
    }
    assert jobs - {"revolut-probe"} == {labels["pairs"][spec["jobLabel"]]}


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict]:
    """What kustomize makes, by kind and name."""
    if KUBECTL is None:
        pytest.skip("needs kubectl to render the manifests")
    command = [str(KUBECTL), "kustomize", str(MONITORING)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    documents = list(yaml.safe_load_all(done.stdout))
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def test_kustomize_renders_it(objects: dict) -> None:
    assert objects["PrometheusRule", "revolut"]["spec"] == monitoring.rules_spec()
    assert ("PodMonitor", "revolut") in objects
    dashboard = objects["ConfigMap", "revolut-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    [text] = dashboard["data"].values()
    assert text == (MONITORING / "dashboard.json").read_text()


@pytest.mark.parametrize("version", [f"1.{minor}" for minor in range(30, 38)])
def test_kubernetes_accepts_what_is_its_own(objects: dict, version: str) -> None:
    ours = [document for document in objects.values() if "coreos" not in document["apiVersion"]]
    assert len(ours) == 5
    for document in ours:
        assert kubernetes_validate.validate(document, version, strict=True) == version


def _seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_the_probe_finds_its_exporter_and_the_exporter_its_configuration(objects: dict) -> None:
    probe = objects["Probe", "revolut"]["spec"]
    service = objects["Service", "revolut-blackbox"]
    deployment = objects["Deployment", "revolut-blackbox"]
    name, _, port = probe["prober"]["url"].partition(":")
    metadata = service["metadata"]
    assert name == f"{metadata['name']}.{metadata['namespace']}.svc"
    assert [each["port"] for each in service["spec"]["ports"]] == [int(port)]
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    # The Service of the world must not find it.
    assert "app.kubernetes.io/name" not in pod["metadata"]["labels"]
    [volume] = pod["spec"]["volumes"]
    configuration = objects["ConfigMap", volume["configMap"]["name"]]
    namespaces = {each["metadata"]["namespace"] for each in (service, deployment, configuration)}
    assert namespaces == {"monitoring"}
    # It asks any address: nobody but Prometheus may make it.
    policy = objects["NetworkPolicy", "revolut-blackbox"]
    assert policy["metadata"]["namespace"] == "monitoring"
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    [rule] = policy["spec"]["ingress"]
    # The label that the operator gives to the pods of a Prometheus.
    prometheus = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert rule == {"from": [{"podSelector": prometheus}], "ports": [{"port": int(port)}]}
    modules = yaml.safe_load(configuration["data"]["blackbox.yaml"])["modules"]
    assert probe["module"] in modules
    [container] = pod["spec"]["containers"]
    [mount] = container["volumeMounts"]
    assert container["args"] == [f"--config.file={mount['mountPath']}/blackbox.yaml"]
    # The exporter gives up before Prometheus does, and says why.
    assert _seconds(modules[probe["module"]]["timeout"]) < _seconds(probe["scrapeTimeout"])
    jobs = {
        value
        for expr in monitoring.expressions().values()
        for selector in monitoring.selectors(expr)
        for label, _, value in selector.matchers
        if label == "job" and selector.metric.startswith("probe_")
    }
    assert jobs == {probe["jobName"]}


def test_the_release_has_the_name_that_the_objects_are_found_by(objects: dict) -> None:
    values = (MONITORING / "helm-values.yaml").read_text()
    [release] = re.findall(r"helm upgrade --install (\S+)", values)
    for kind in ("PodMonitor", "PrometheusRule", "Probe"):
        assert objects[kind, "revolut"]["metadata"]["labels"]["release"] == release
    wanted = yaml.safe_load(values)
    # As long as the longest look back, and the name of each Secret as it is made.
    [days] = re.findall(r"^(\d+)d$", wanted["prometheus"]["prometheusSpec"]["retention"])
    assert int(days) >= 30
    made = set(re.findall(r"create secret generic (\S+)", values))
    alertmanager = wanted["alertmanager"]["alertmanagerSpec"]
    assert made == {alertmanager["configSecret"], *alertmanager["secrets"]}


def test_the_guide_does_what_the_values_want() -> None:
    guide = (ROOT / "docs" / "deploy-eks.md").read_text()
    step = guide[guide.index("## 9.") : guide.index("## A way in")]
    values = yaml.safe_load((MONITORING / "helm-values.yaml").read_text())
    alertmanager = values["alertmanager"]["alertmanagerSpec"]
    commands = re.findall(r"create secret generic (\S+) .*\\\n +(.*)", step)
    # As what a Secret has is called: by the name of each file.
    made = {
        name: set(re.findall(r"--from-file=\S*?([\w.-]+)\"?(?= |$)", files))
        for name, files in commands
    }
    [receivers] = alertmanager["secrets"]
    mounted = rf"/etc/alertmanager/secrets/{receivers}/(\S+)"
    read = set(re.findall(mounted, (MONITORING / "alertmanager.yaml").read_text()))
    assert made == {alertmanager["configSecret"]: {"alertmanager.yaml"}, receivers: read}
    order = ["create namespace", *made, "--values manifests/monitoring/helm-values.yaml"]
    places = [step.index(each) for each in [*order, "kubectl kustomize manifests/monitoring"]]
    assert places == sorted(places)
    # Whatever is a placeholder in the manifests is replaced.
    written = "".join(path.read_text() for path in MONITORING.glob("*.yaml"))
    for placeholder in re.findall(r"'s\|([^|]+)\|", step):
        assert placeholder in written
    assert "'s|http://hello.example.com|" in step
