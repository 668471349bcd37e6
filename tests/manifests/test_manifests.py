"""The manifests as `kubectl apply` gets them, and what has to fit together in them."""

import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.programs import find

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
# Read, not imported: gevent patches what imports the server.
SERVER, APP = ROOT / "hello" / "server" / "configuration.py", ROOT / "hello" / "app.py"
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]

#: Seconds for which load balancers keep an idle connection.
BALANCER_IDLE = 60

KUBECTL = find("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl to render the manifests")


@pytest.fixture(scope="module", params=["base", "overlays/dev", "overlays/production"])
def rendered(request: pytest.FixtureRequest) -> str:
    command = [KUBECTL, "kustomize", MANIFESTS / request.param]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def objects(rendered: str) -> dict[str, dict]:
    """The objects, by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(rendered)}


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
def test_kubernetes_accepts_every_field(objects: dict[str, dict], version: str) -> None:
    for document in objects.values():
        # It says which version's schema it took: this very one.
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_a_pod_has_the_time_to_drain(pod: dict, container: dict, environment: dict) -> None:
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # 3 s after GRACEFUL_TIMEOUT gunicorn kills what is left.
    drained = pre_stop + int(environment["GRACEFUL_TIMEOUT"]) + 3
    assert drained < pod["terminationGracePeriodSeconds"]


def test_idle_connections_are_kept_longer_than_balancers_keep_them() -> None:
    server = SERVER.read_text()
    assert int(re.search(r"^keepalive = (\d+)$", server, re.M)[1]) > BALANCER_IDLE


def test_the_probes_ask_for_what_there_is(container: dict) -> None:
    service, admin = APP.read_text().split("def create_admin_app")
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
    assert deployment["template"]["metadata"]["labels"] == labels
    assert deployment["selector"] == {"matchLabels": labels}
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    for constraint in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"] == {"matchLabels": labels}
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "revolut")


def test_who_reaches_the_pods_and_whom_they_reach(objects: dict[str, dict]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]

    def namespace(name: str) -> list[dict]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]

    assert policy["ingress"] == [
        {"ports": [{"port": "http"}]},
        {"ports": [{"port": "metrics"}], "from": namespace("monitoring")},
    ]
    names = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert policy["egress"] == [
        {"ports": names, "to": namespace("kube-system")},
        {"ports": [{"port": 5432}, {"port": 6379}]},
    ]


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


def test_passwords_come_from_the_mounted_secret_alone(
    rendered: str, objects: dict[str, dict], pod: dict
) -> None:
    assert "Secret" not in objects
    assert "://" not in rendered
    assert "secretKeyRef" not in rendered
    assert pod["volumes"][0]["secret"]["secretName"] == "database"
    for container in pod["initContainers"] + pod["containers"]:
        mount = next(m for m in container["volumeMounts"] if m["name"] == "database")
        assert "subPath" not in mount
