"""The manifests as `kubectl apply` gets them, and what has to fit together in them."""

import re
import shutil
import subprocess
from ipaddress import ip_network
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

import hello
from tests.support.programs import find

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
# Read, not imported: gevent patches what imports the server.
SERVER = ROOT / "hello" / "server" / "configuration.py"
APP = ROOT / "hello" / "app.py"
ADMIN_APP = ROOT / "hello" / "telemetry" / "exposition.py"
NETWORK = MANIFESTS / "aws" / "network.tf"
VARIABLES = MANIFESTS / "aws" / "variables.tf"
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
OVERLAYS = ["base", "overlays/dev", "overlays/local", "overlays/production"]

#: Seconds for which load balancers keep an idle connection.
BALANCER_IDLE = 60

KUBECTL = find("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl to render the manifests")


#: Seconds left when a pod should have ended, before it is killed.
MARGIN = 5
#: Seconds that a tool which renews nodes waits for one to be empty: EKS's managed node groups.
NODE_IS_EMPTY_WITHIN = 15 * 60

#: MiB of memory, as manifests/base/deployment.yaml says they were measured: with load, and what is
#: added if every connection that a worker keeps asks and never reads.
MEMORY_UNDER_LOAD = 88
MEMORY_OF_A_CROWD = 100
#: KiB that the kernel keeps of an answer that is not read, for each connection.
SEND_BUFFER = 64


def render(directory: Path) -> str:
    command = [str(KUBECTL), "kustomize", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> str:
    return render(MANIFESTS / request.param)


def documents(text: str) -> list[dict]:
    return list(yaml.safe_load_all(text))


def of_the_service(text: str) -> dict[str, dict]:
    """The objects of the service, by kind: all but those of a database beside it."""
    found = [each for each in documents(text) if each["metadata"]["name"] == "revolut"]
    by_kind = {document["kind"]: document for document in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.fixture(scope="module")
def objects(rendered: str) -> dict[str, dict]:
    return of_the_service(rendered)


@pytest.fixture(scope="module")
def production() -> dict[str, dict]:
    return of_the_service(render(MANIFESTS / "overlays" / "production"))


@pytest.fixture(scope="module")
def pod(objects: dict[str, dict]) -> dict:
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict) -> dict:
    return pod["containers"][0]


@pytest.fixture(scope="module")
def environment(container: dict) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_field(rendered: str, version: str) -> None:
    for document in documents(rendered):
        # It says which version's schema it took: this very one.
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_a_pod_has_the_time_to_drain(pod: dict, container: dict, environment: dict) -> None:
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # 3 s after GRACEFUL_TIMEOUT gunicorn kills what is left.
    drained = pre_stop + int(environment["GRACEFUL_TIMEOUT"]) + 3
    assert drained + MARGIN <= pod["terminationGracePeriodSeconds"]


def test_idle_connections_are_kept_longer_than_balancers_keep_them() -> None:
    [keepalive] = re.findall(r"^keepalive = (\d+)$", SERVER.read_text(), re.M)
    assert int(keepalive) > BALANCER_IDLE


def test_the_probes_ask_for_what_there_is(container: dict) -> None:
    service, admin = APP.read_text(), ADMIN_APP.read_text()
    # Liveness is asked where clients cannot fill the door.
    expected = {"startupProbe": "http", "readinessProbe": "http", "livenessProbe": "metrics"}
    for probe, port in expected.items():
        get = container[probe]["httpGet"]
        assert get["port"] == port
        app = service if port == "http" else admin
        assert get["path"] in re.findall(r'add_route\("([^"]+)"', app)


def test_the_ports_agree(objects: dict[str, dict], container: dict, environment: dict) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": int(environment["PORT"]), "metrics": int(environment["ADMIN_PORT"])}
    assert len(set(ports.values())) == 2
    # The admin port is no part of the Service.
    (port,) = objects["Service"]["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_every_selector_finds_the_pods(objects: dict[str, dict]) -> None:
    labels = {"app.kubernetes.io/name": "revolut"}
    deployment = objects["Deployment"]["spec"]
    assert labels.items() <= deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"] == {"matchLabels": labels}
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    for constraint in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"] == {"matchLabels": labels}
        # Else those of the release before count, which are about to end.
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "revolut")


def test_everything_has_the_recommended_labels(objects: dict[str, dict]) -> None:
    recommended = {
        f"app.kubernetes.io/{name}": value
        for name, value in {
            "name": "revolut",
            "instance": "revolut",
            "version": hello.__version__,
            "component": "service",
            "part-of": "hello",
            "managed-by": "kustomize",
        }.items()
    }
    pods = objects["Deployment"]["spec"]["template"]
    for labelled in (*objects.values(), pods):
        assert recommended.items() <= labelled["metadata"]["labels"].items()


def test_who_reaches_the_pods_and_whom_they_reach(objects: dict[str, dict]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]

    def namespace(name: str) -> list[dict]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]

    assert policy["ingress"] == [
        {"ports": [{"port": "http"}]},
        {"ports": [{"port": "metrics"}], "from": namespace("monitoring")},
    ]
    name_servers, databases = policy["egress"]
    assert name_servers == {
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
        # NodeLocal DNSCache is no pod for a selector: it listens on the node's network.
        "to": [*namespace("kube-system"), {"ipBlock": {"cidr": "169.254.20.10/32"}}],
    }
    assert databases["ports"] == [{"port": 5432}, {"port": 6379}]


def test_no_pod_is_missing_during_an_upgrade(objects: dict[str, dict]) -> None:
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_pods_are_restricted(pod: dict) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["initContainers"] + pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_passwords_come_from_the_mounted_secret_alone(rendered: str, pod: dict) -> None:
    assert "Secret" not in {document["kind"] for document in documents(rendered)}
    assert "://" not in rendered
    assert "secretKeyRef" not in rendered
    assert pod["volumes"][0]["secret"]["secretName"] == "database"
    for container in pod["initContainers"] + pod["containers"]:
        mount = next(m for m in container["volumeMounts"] if m["name"] == "database")
        assert "subPath" not in mount


def test_what_a_container_failed_of_is_kept(pod: dict) -> None:
    for container in pod["initContainers"] + pod["containers"]:
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_all_that_a_pod_logs_is_json(pod: dict) -> None:
    # The service does by itself, where no terminal is.
    [migrate] = pod["initContainers"]
    assert migrate["env"] == [{"name": "LOG_FORMAT", "value": "json"}]


def test_the_memory_is_enough_for_every_connection(container: dict, environment: dict) -> None:
    connections = int(environment["MAX_CONNECTIONS"])
    unread = connections * SEND_BUFFER / 1024
    limit = container["resources"]["limits"]["memory"]
    assert MEMORY_UNDER_LOAD + MEMORY_OF_A_CROWD + unread < int(limit.removesuffix("Mi"))


def millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def test_the_autoscaler_goes_by_an_amount_of_cpu(objects: dict[str, dict]) -> None:
    (metric,) = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    target = metric["resource"]["target"]
    assert target["type"] == "AverageValue"
    # A worker can use one core: there must be room for what comes before new pods are ready.
    assert millicores(target["averageValue"]) <= 500
    assert "replicas" not in objects["Deployment"]["spec"]


def test_the_autoscaler_does_not_go_to_its_end_in_one_step(production: dict[str, dict]) -> None:
    spec = production["HorizontalPodAutoscaler"]["spec"]
    least = spec["minReplicas"]
    policies = spec["behavior"]["scaleUp"]["policies"]
    step = {policy["type"]: policy["value"] for policy in policies}
    assert least + max(least * step["Percent"] / 100, step["Pods"]) < spec["maxReplicas"]


def test_pods_are_large_enough_for_batches(production: dict[str, dict]) -> None:
    pod = production["Deployment"]["spec"]["template"]["spec"]
    requested = millicores(pod["containers"][0]["resources"]["requests"]["cpu"])
    assert 500 <= requested <= 1000
    target = production["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["resource"]["target"]
    # Nodes have what is asked of them.
    assert millicores(target["averageValue"]) <= requested


# Behind a network load balancer of AWS


def annotation(production: dict[str, dict], name: str) -> str:
    prefix = "service.beta.kubernetes.io/aws-load-balancer-"
    return production["Service"]["metadata"]["annotations"][prefix + name]


def attribute(production: dict[str, dict], of: str, name: str) -> str:
    return dict(pair.split("=") for pair in annotation(production, of).split(","))[name]


def grace(objects: dict[str, dict]) -> int:
    return objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_load_balancer_accepts_its_health_check(production: dict[str, dict]) -> None:
    interval = int(annotation(production, "healthcheck-interval"))
    timeout = int(annotation(production, "healthcheck-timeout"))
    assert 5 <= interval <= 300
    assert 2 <= timeout <= interval
    for threshold in ("healthy", "unhealthy"):
        assert 2 <= int(annotation(production, f"healthcheck-{threshold}-threshold")) <= 10
    pod = production["Deployment"]["spec"]["template"]["spec"]
    probe = pod["containers"][0]["readinessProbe"]
    assert annotation(production, "healthcheck-path") == probe["httpGet"]["path"]


def test_it_is_said_whether_traffic_crosses_zones(production: dict[str, dict]) -> None:
    crosses = attribute(production, "attributes", "load_balancing.cross_zone.enabled")
    assert crosses in ("true", "false")


def test_the_load_balancer_has_let_go_before_a_pod_ends(production: dict[str, dict]) -> None:
    name = "deregistration_delay.timeout_seconds"
    assert int(attribute(production, "target-group-attributes", name)) <= grace(production)


def test_only_a_cloud_s_load_balancer_keeps_pods_waiting(
    objects: dict[str, dict], container: dict
) -> None:
    # A pod that ends keeps its room on the node, and the next release waits for it.
    if "annotations" not in objects["Service"]["metadata"]:
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] <= 5
        assert grace(objects) <= 40


def default(variable: str) -> str:
    """What manifests/aws/variables.tf has for it."""
    body = VARIABLES.read_text().split(f'variable "{variable}" {{', 1)[1]
    [found] = re.findall(r'^  default += "?([^"\n]+)', body, re.M)[:1]
    return found


def test_a_node_is_empty_before_those_who_renew_it_give_up(production: dict[str, dict]) -> None:
    pods = production["HorizontalPodAutoscaler"]["spec"]["maxReplicas"]
    # One node is away already.
    on_a_node = ceil(pods / (int(default("nodes")) - 1))
    allowed = str(production["PodDisruptionBudget"]["spec"]["maxUnavailable"])
    share = re.fullmatch(r"(\d+)%", allowed)
    # Kubernetes rounds up.
    at_a_time = ceil(pods * int(share[1]) / 100) if share else int(allowed)
    assert ceil(on_a_node / at_a_time) * grace(production) < NODE_IS_EMPTY_WITHIN


def test_the_budget_lets_one_pod_go_and_never_all(objects: dict[str, dict]) -> None:
    spec = objects["HorizontalPodAutoscaler"]["spec"]
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == "25%"
    if spec["minReplicas"] > 1:
        assert 1 <= ceil(spec["minReplicas"] * 0.25) < spec["minReplicas"]


def subnets(name: str) -> list:
    """The networks of a kind of subnet, as manifests/aws/network.tf makes them."""
    body = NETWORK.read_text().split(f'resource "aws_subnet" "{name}" {{', 1)[1]
    [(bits, first)] = re.findall(
        r"cidrsubnet\(var\.cidr, (\d+), count\.index(?: \+ (\d+))?\)", body.split("\n}", 1)[0]
    )
    every = list(ip_network(default("cidr")).subnets(prefixlen_diff=int(bits)))
    start = int(first or 0)
    return every[start : start + int(default("zones"))]


def test_pods_in_production_reach_the_subnets_of_the_databases_alone(
    production: dict[str, dict],
) -> None:
    _, databases = production["NetworkPolicy"]["spec"]["egress"]
    blocks = [ip_network(peer["ipBlock"]["cidr"]) for peer in databases["to"]]
    for subnet in subnets("data"):
        assert any(subnet.subnet_of(block) for block in blocks), subnet
    for subnet in subnets("public") + subnets("nodes"):
        assert not any(subnet.overlaps(block) for block in blocks), subnet


def test_a_connection_from_the_internet_that_says_nothing_ends_soon(
    production: dict[str, dict],
) -> None:
    pod = production["Deployment"]["spec"]["template"]["spec"]
    environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    assert float(environment["HEAD_TIMEOUT"]) <= 5


# Parts


@pytest.fixture
def traced(tmp_path: Path) -> dict[str, dict]:
    """The base with the component `otlp`."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    overlay = tmp_path / "manifests" / "overlays" / "traced"
    overlay.mkdir()
    parts = {"resources": ["../../base"], "components": ["../../components/otlp"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return of_the_service(render(overlay))


def test_traces_leave_for_where_they_are_sent(traced: dict[str, dict]) -> None:
    container = traced["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    environment = {each["name"]: each["value"] for each in container["env"]}
    collector = urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
    namespace = str(collector.hostname).partition(".")[2]
    assert traced["NetworkPolicy"]["spec"]["egress"][2:] == [
        {
            "to": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
            ],
            "ports": [{"port": collector.port}],
        }
    ]
    for document in traced.values():
        assert kubernetes_validate.validate(document, VERSIONS[0], strict=True) == VERSIONS[0]
