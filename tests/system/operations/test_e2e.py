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


def render(manifests: str, directory: Path) -> Path:
    command = [str(find("kubectl")), "kustomize", str(ROOT / "manifests" / manifests)]
    path = directory / "deployment.yml"
    path.write_bytes(subprocess.check_output(command))
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pod."""
    return render("overlays/dev", tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def two_pods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render("base", tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def previous(manifest: Path) -> Path:
    """The manifest of another release."""
    path = manifest.with_name("previous.yml")
    path.write_text(manifest.read_text().replace("image: hello:dev", "image: hello:previous"))
    return path


@pytest.fixture
def kubernetes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kubernetes]:
    kubernetes = Kubernetes(tmp_path, **getattr(request, "param", {}))
    yield kubernetes
    kubernetes.close()


def e2e(
    kubernetes: Kubernetes, manifest: Path, db_uri: str, *more: Path
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "scripts" / "e2e.sh", manifest, *more],
        env={"PATH": f"{kubernetes.programs}:{os.environ['PATH']}", "DB_URI": db_uri},
        capture_output=True,
        text=True,
        timeout=600,
    )


def requests(done: subprocess.CompletedProcess) -> list[tuple[int, int]]:
    """How many requests were sent during each change, and how many of them failed."""
    found = re.findall(r"^(\d+) requests, (\d+) failed$", done.stdout, re.MULTILINE)
    assert found, done
    return [(int(sent), int(failed)) for sent, failed in found]


def held(done: subprocess.CompletedProcess) -> None:
    """It passed, and two changes were made under load without a failure."""
    assert done.returncode == 0, done
    counted = requests(done)
    print(counted)
    assert len(counted) == 2
    assert all(sent > 100 and failed == 0 for sent, failed in counted)
    assert done.stdout.endswith("== passed\n")


def test_it_restarts_without_a_failure_rolls_back_and_cleans_up(
    kubernetes: Kubernetes, two_pods: Path, shared_cluster: Cluster, empty_database: str
) -> None:
    held(e2e(kubernetes, two_pods, shared_cluster.uri(empty_database)))
    # Deployed, restarted, and back.
    assert len(kubernetes.revisions) == 3
    assert kubernetes.revisions[0] == kubernetes.revisions[2]
    # Never with the one pod that there is before the autoscaler has looked.
    assert kubernetes.ready_before == [0, 2, 2]
    assert (kubernetes.objects, kubernetes.secrets) == ({}, {})
    eventually(lambda: not kubernetes.pods, within=60)


def test_it_goes_from_one_release_to_another_and_back(
    kubernetes: Kubernetes,
    manifest: Path,
    previous: Path,
    shared_cluster: Cluster,
    empty_database: str,
) -> None:
    done = e2e(kubernetes, manifest, shared_cluster.uri(empty_database), previous)
    held(done)
    assert "== upgrade under load\n" in done.stdout
    assert kubernetes.images == ["hello:previous", "hello:dev", "hello:previous"]


def test_it_wants_two_releases_that_differ(
    kubernetes: Kubernetes, manifest: Path, tmp_path: Path
) -> None:
    done = e2e(kubernetes, manifest, "postgresql://hello@localhost/hello", manifest)
    assert done.returncode == 1
    assert "has the image of" in done.stderr
    done = e2e(kubernetes, manifest, "postgresql://hello@localhost/hello", tmp_path / "none.yml")
    assert done.returncode == 1
    assert "there is no " in done.stderr
    assert (kubernetes.revisions, kubernetes.secrets) == ([], {})


@pytest.mark.parametrize("kubernetes", [{"brutal": True}], indirect=True)
def test_it_sees_requests_that_fail_and_cleans_up(
    kubernetes: Kubernetes, manifest: Path, shared_cluster: Cluster, empty_database: str
) -> None:
    done = e2e(kubernetes, manifest, shared_cluster.uri(empty_database))
    assert done.returncode == 1
    assert requests(done)[0][1] > 0
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
