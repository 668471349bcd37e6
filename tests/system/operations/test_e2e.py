"""scripts/e2e.sh on a stand-in for a cluster: what it counts, and what it leaves behind."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kubernetes import Kubernetes
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.programs import find

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.skipif(find("kubectl") is None, reason="needs kubectl to render the manifests"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, as the script does"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [str(find("kubectl")), "kustomize", str(ROOT / "manifests" / "overlays" / "dev")]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    path = tmp_path_factory.mktemp("manifest") / "deployment.yml"
    path.write_text(rendered)
    return path


@pytest.fixture
def kubernetes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kubernetes]:
    kubernetes = Kubernetes(tmp_path, **getattr(request, "param", {}))
    yield kubernetes
    kubernetes.close()


def e2e(kubernetes: Kubernetes, manifest: Path, db_uri: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "scripts" / "e2e.sh", manifest],
        env={"PATH": f"{kubernetes.programs}:{os.environ['PATH']}", "DB_URI": db_uri},
        capture_output=True,
        text=True,
        timeout=300,
    )


def requests(done: subprocess.CompletedProcess) -> tuple[int, int]:
    """How many requests were sent during the restart, and how many of them failed."""
    found = re.search(r"^(\d+) requests, (\d+) failed$", done.stdout, re.MULTILINE)
    assert found, done
    return int(found[1]), int(found[2])


def test_it_restarts_without_a_failure_rolls_back_and_cleans_up(
    kubernetes: Kubernetes, manifest: Path, shared_cluster: Cluster, empty_database: str
) -> None:
    done = e2e(kubernetes, manifest, shared_cluster.uri(empty_database))
    assert done.returncode == 0, done
    sent, failed = requests(done)
    print(f"{sent} requests, {failed} failed")
    assert failed == 0
    assert sent > 100
    assert done.stdout.endswith("== passed\n")
    # Deployed, restarted, and back.
    assert len(kubernetes.revisions) == 3
    assert kubernetes.revisions[0] == kubernetes.revisions[2]
    assert (kubernetes.objects, kubernetes.secrets) == ({}, {})
    eventually(lambda: not kubernetes.pods, within=60)


@pytest.mark.parametrize("kubernetes", [{"brutal": True}], indirect=True)
def test_it_sees_requests_that_fail_and_cleans_up(
    kubernetes: Kubernetes, manifest: Path, shared_cluster: Cluster, empty_database: str
) -> None:
    done = e2e(kubernetes, manifest, shared_cluster.uri(empty_database))
    assert done.returncode == 1
    assert requests(done)[1] > 0
    assert "e2e.sh: requests failed: " in done.stderr
    assert (kubernetes.objects, kubernetes.secrets) == ({}, {})


def test_it_cleans_up_after_pods_that_do_not_start(kubernetes: Kubernetes, manifest: Path) -> None:
    done = e2e(kubernetes, manifest, f"postgresql://hello@127.0.0.1:{free_port()}/hello")
    assert done.returncode == 1
    assert "a pod does not start" in done.stderr
    assert "== passed" not in done.stdout
    assert (kubernetes.objects, kubernetes.secrets) == ({}, {})


def test_it_leaves_alone_what_was_there_before(
    kubernetes: Kubernetes, manifest: Path, tmp_path: Path
) -> None:
    kubernetes.secrets["database"] = tmp_path
    done = e2e(kubernetes, manifest, "postgresql://hello@localhost/hello")
    assert done.returncode == 1
    assert "already exists" in done.stderr
    assert kubernetes.secrets == {"database": tmp_path}

    kubernetes.secrets.clear()
    service = {"kind": "Service"}
    kubernetes.objects["Service"] = service
    done = e2e(kubernetes, manifest, "postgresql://hello@localhost/hello")
    assert done.returncode == 1
    assert "has the service already" in done.stderr
    assert kubernetes.objects == {"Service": service}
    assert kubernetes.secrets == {}
    kubernetes.objects.clear()
