"""The overlay `local`: the service and its databases on one node, and `make local`."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.programs import find

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "manifests" / "overlays" / "local"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
KUBECTL = find("kubectl")

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl to render the manifests")


@pytest.fixture(scope="module")
def documents() -> list[dict]:
    rendered = subprocess.check_output([str(KUBECTL), "kustomize", OVERLAY])
    return list(yaml.safe_load_all(rendered))


def named(documents: list[dict], kind: str) -> dict[str, dict]:
    found = [document for document in documents if document["kind"] == kind]
    return {document["metadata"]["name"]: document for document in found}


def template(document: dict) -> dict:
    return document["spec"]["template"]


@needs_kubectl
def test_everything_is_in_a_namespace_of_its_own(documents: list[dict]) -> None:
    [namespace] = named(documents, "Namespace").values()
    level = "pod-security.kubernetes.io/enforce"
    assert namespace["metadata"]["labels"] == {level: "restricted"}
    for document in documents:
        if document is not namespace:
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


@needs_kubectl
def test_it_has_what_compose_has(documents: list[dict]) -> None:
    for name, document in named(documents, "StatefulSet").items():
        service = COMPOSE["services"][name]
        [container] = template(document)["spec"]["containers"]
        assert container["image"] == service["image"]
        assert container.get("args", "") == service.get("command", "")
        variables = {each["name"]: each["value"] for each in container.get("env", [])}
        assert variables == service.get("environment", {})
        port = named(documents, "Service")[name]["spec"]["ports"][0]["port"]
        assert port == container["ports"][0]["containerPort"]
    assert set(named(documents, "StatefulSet")) == {"primary", "replica", "cache"}


@needs_kubectl
def test_pods_pass_as_restricted(documents: list[dict]) -> None:
    for document in named(documents, "StatefulSet").values():
        pod = template(document)["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


@needs_kubectl
def test_a_mounted_script_is_the_one_of_its_container(documents: list[dict]) -> None:
    [scripts] = [
        each for name, each in named(documents, "ConfigMap").items() if name.startswith("postgres-")
    ]
    for name in ("primary", "replica"):
        pod = template(named(documents, "StatefulSet")[name])["spec"]
        [volume] = [each["configMap"] for each in pod["volumes"] if "configMap" in each]
        assert volume["name"] == scripts["metadata"]["name"]
        assert volume["items"] == [{"key": f"{name}.sh", "path": f"{name}.sh"}]
        assert scripts["data"][f"{name}.sh"] == (OVERLAY / f"{name}.sh").read_text()


@needs_kubectl
def test_the_service_reaches_these_databases_alone(documents: list[dict]) -> None:
    policies = named(documents, "NetworkPolicy")
    _, databases = policies["revolut"]["spec"]["egress"]
    [peer] = databases["to"]
    selected = peer["podSelector"]["matchLabels"]
    assert policies["databases"]["spec"]["podSelector"]["matchLabels"] == selected
    for document in named(documents, "StatefulSet").values():
        assert selected.items() <= template(document)["metadata"]["labels"].items()
    for document in named(documents, "Deployment").values():
        assert not selected.items() <= template(document)["metadata"]["labels"].items()


@needs_kubectl
def test_the_uris_name_its_services(documents: list[dict], tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "secrets"], cwd=tmp_path, check=True)
    ports = {
        f"{name}:{document['spec']['ports'][0]['port']}"
        for name, document in named(documents, "Service").items()
    }
    for key, default in {"DB_URI": 5432, "DB_READ_URI": 5432, "CACHE_URI": 6379}.items():
        uri = urlsplit((tmp_path / ".secrets" / key).read_text())
        assert f"{uri.hostname}:{uri.port or default}" in ports


# `make local`

PROGRAM = """#!/bin/sh
echo "${0##*/} $*" >>"$RECORD"
case "$*" in
    'config current-context') echo "$CONTEXT" ;;
    *' --ignore-not-found '*) printf %s "$PRESENT" ;;
    "$FAILS"*) exit 1 ;;
esac
"""


class Machine:
    """A checkout, and programs that keep a record of what they are asked."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        self.record = directory / "record"
        self.programs = directory / "bin"
        (self.checkout / "scripts").mkdir(parents=True)
        for script in ("local", "secrets"):
            shutil.copy(ROOT / "scripts" / script, self.checkout / "scripts")
        self.programs.mkdir()
        for name in ("kubectl", "kind", "minikube"):
            (self.programs / name).write_text(PROGRAM)
            (self.programs / name).chmod(0o755)

    def run(self, context: str, *, present: str = "", fails: str = "nothing") -> list[str]:
        """What was asked for; the script must succeed, unless something fails."""
        self.record.write_text("")
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "CONTEXT": context,
            "PRESENT": present,
            "FAILS": fails,
        }
        command = [self.checkout / "scripts" / "local"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) is (fails == "nothing"), done
        return self.record.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("context", "loads"),
    [
        ("kind-two", "kind load docker-image hello:dev --name two"),
        ("minikube", "minikube image load hello:dev"),
    ],
)
def test_the_nodes_get_the_image(machine: Machine, context: str, loads: str) -> None:
    assert machine.run(context)[1] == loads


def test_another_cluster_has_its_images_already(machine: Machine) -> None:
    asked = machine.run("elsewhere")
    assert {line.split()[0] for line in asked} == {"kubectl"}


def test_the_secrets_are_there_before_the_pods_and_have_what_pods_mount(machine: Machine) -> None:
    asked = machine.run("minikube")
    created = [line for line in asked if " create secret generic " in line]
    assert len(created) == 2
    applied = asked.index("kubectl apply --kustomize manifests/overlays/local")
    assert all(asked.index(line) < applied for line in created)
    for line in created:
        for word in line.split():
            if word.startswith("--from-file="):
                assert (machine.checkout / word.partition("=")[2]).is_file()
    keys = {word.rpartition("/")[2] for line in created for word in line.split() if "/" in word}
    assert keys == {"DB_URI", "DB_READ_URI", "CACHE_URI", "password"}
    # It waits for all of it, the service last.
    assert asked[-1].endswith("rollout status deployment/revolut --timeout=5m")
    assert not [line for line in asked if "restart" in line]


def test_a_second_time_it_keeps_the_passwords_and_takes_the_new_image(machine: Machine) -> None:
    asked = machine.run("minikube", present="there")
    assert not [line for line in asked if "create" in line]
    assert [line for line in asked if line.endswith("rollout restart deployment/revolut")]


def test_what_fails_ends_it(machine: Machine) -> None:
    assert "rollout" not in machine.run("kind-a", fails="load")[-1]
    asked = machine.run("kind-a", fails="apply --kustomize")
    assert asked[-1].startswith("kubectl apply --kustomize")
