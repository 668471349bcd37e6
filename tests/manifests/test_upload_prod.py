"""`make upload-prod`: what it writes, and that a failure leaves the old deployment.yml alone.

The failures are tested with a `docker` that does as it is told and keeps a record; the real
thing, with Docker and a registry, where there is one.
"""

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import eventually, free_port
from tests.support.programs import find

ROOT = Path(__file__).parents[2]
REGISTRY = find("docker-registry")

#: All that the script may need, besides docker and kubectl.
TOOLS = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "dirname",
    "env",
    "git",
    "grep",
    "mktemp",
    "mv",
    "rm",
    "sed",
]

DOCKER = """#!/bin/sh
case "$1 $2" in
    "buildx inspect") [ -n "$BUILDER" ] && printf '%b' "$BUILDER"; exit ;;
esac
echo "$*" >>"$RECORD"
while [ $# -gt 1 ] && [ "$1" != --metadata-file ]; do
    case $1 in buildx) buildx=yes ;; esac
    [ -z "$buildx" ] && break
    shift
done
case $1 in
    --metadata-file) printf '%s' "$METADATA" >"$2"; exit "${BUILD:-0}" ;;
    build) exit "${BUILD:-0}" ;;
    push) exit "${PUSH:-0}" ;;
    image) printf '%s\\n' $DIGESTS ;;
esac
"""

OLD = "# the deployment before\n"
DIGEST = f"sha256:{'5' * 64}"

pytestmark = [
    pytest.mark.skipif(find("kubectl") is None, reason="needs kubectl to render the manifests"),
    pytest.mark.skipif(find("git") is None, reason="needs git: an image is made of a commit"),
]


class Repository:
    """A clean repository with the script and the manifests, and a PATH that holds nothing else."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "repository"
        self.programs = directory / "bin"
        self.record = directory / "record"
        self.programs.mkdir()
        for name in [*TOOLS, "kubectl"]:
            (self.programs / name).symlink_to(find(name) or name)
        docker = self.programs / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        shutil.copytree(ROOT / "manifests", self.path / "manifests")
        for name in ("scripts", "hello"):
            (self.path / name).mkdir()
        (self.path / "hello" / "__init__.py").write_text('__version__ = "1.2.3"\n')
        for name in ("upload-prod", "image-arguments"):
            shutil.copy(ROOT / "scripts" / name, self.path / "scripts")
        (self.path / ".gitignore").write_text("deployment.yml\n")
        # Of nothing, so that no base image is needed. The real one is the same to this script.
        (self.path / "Dockerfile").write_text("FROM scratch\nCOPY manifests /manifests\n")
        self.deployment.write_text(OLD)
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Begin")

    @property
    def deployment(self) -> Path:
        return self.path / "deployment.yml"

    @property
    def calls(self) -> list[str]:
        """What docker was asked, one line each."""
        return self.record.read_text().splitlines() if self.record.exists() else []

    @property
    def revision(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def created(self) -> str:
        return self.git("show", "--no-patch", "--format=%cI", "HEAD")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def upload(self, org: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.path / "scripts" / "upload-prod", org],
            env=self._environment | {"RECORD": str(self.record)} | environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )

    @property
    def _environment(self) -> dict[str, str]:
        names = ("AUTHOR", "COMMITTER")
        who = {f"GIT_{name}_{what}": "test@test" for name in names for what in ("NAME", "EMAIL")}
        nothing = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        return {"PATH": str(self.programs), "HOME": str(self.path.parent)} | who | nothing


#: What happens to a repository before it is uploaded.
Event = Callable[[Repository], object]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def images(deployment: Path) -> list[str]:
    lines = map(str.strip, deployment.read_text().splitlines())
    return [line.removeprefix("image: ") for line in lines if line.startswith("image: ")]


def test_the_deployment_has_the_digest_that_was_pushed(repository: Repository) -> None:
    # The same bytes were once pushed elsewhere.
    digests = f"mirror.test/revolut/hello@{DIGEST} revolut/hello@{DIGEST}"
    done = repository.upload("revolut", DIGESTS=digests)
    assert done.returncode == 0, done.stderr
    revision = repository.revision
    tag = f"revolut/hello:1.2.3-{revision[:12]}"
    build, push, _ = repository.calls
    version = f"--build-arg VERSION=1.2.3-{revision[:12]}"
    label = f"--label org.opencontainers.image.created={repository.created}"
    assert build == f"build {version} --build-arg REVISION={revision} {label} --tag {tag} ."
    assert push == f"push {tag}"
    # One for the migration, one for the service.
    assert images(repository.deployment) == [f"revolut/hello@{DIGEST}"] * 2
    assert repository.deployment.stat().st_mode & 0o777 == 0o644
    assert f"deployment.yml has revolut/hello@{DIGEST}" in done.stdout


def test_without_a_digest_the_deployment_has_the_tag_of_the_commit(repository: Repository) -> None:
    done = repository.upload("127.0.0.1:5000/revolut", DIGESTS="")
    assert done.returncode == 0, done.stderr
    tag = f"127.0.0.1:5000/revolut/hello:1.2.3-{repository.revision[:12]}"
    assert images(repository.deployment) == [tag] * 2


def test_a_release_has_its_own_tag_and_a_base_may_be_named(repository: Repository) -> None:
    repository.git("tag", "v1.2.3")
    done = repository.upload("revolut", DIGESTS="", BASE=f"python:3@{DIGEST}")
    assert done.returncode == 0, done.stderr
    build = repository.calls[0]
    assert build.startswith("build --build-arg VERSION=1.2.3 ")
    name, digest = (
        f"--label org.opencontainers.image.base.{label}"
        for label in ("name=python:3", f"digest={DIGEST}")
    )
    base = f" --build-arg BASE=python:3@{DIGEST} {name} {digest} "
    assert build.endswith(f"{base}--tag revolut/hello:1.2.3 .")
    assert images(repository.deployment) == ["revolut/hello:1.2.3"] * 2


#: What `docker buildx inspect` says of a builder.
BUILDER = "Name: multi\\nDriver:   docker-container\\n\\nPlatforms: linux/amd64*, linux/arm64\\n"
METADATA = f'{{\n  "buildx.build.ref": "x",\n  "containerimage.digest": "{DIGEST}"\n}}\n'


@pytest.mark.parametrize(
    ("builder", "wanted", "platforms"),
    [
        (BUILDER, "", "linux/amd64,linux/arm64"),
        (BUILDER, "linux/arm64", "linux/arm64"),
        (BUILDER.replace(", linux/arm64", ""), "", "linux/amd64"),
    ],
)
def test_a_builder_that_can_makes_it_for_both_and_says_what_is_in_it(
    repository: Repository, builder: str, wanted: str, platforms: str
) -> None:
    environment = {"DOCKER_DEFAULT_PLATFORM": wanted} if wanted else {}
    done = repository.upload("revolut", BUILDER=builder, METADATA=METADATA, **environment)
    assert done.returncode == 0, done.stderr
    [build] = repository.calls
    assert build.startswith(
        f"buildx build --platform {platforms} --sbom=true --provenance=mode=max --metadata-file "
    )
    assert " --push --build-arg VERSION=1.2.3-" in build
    assert images(repository.deployment) == [f"revolut/hello@{DIGEST}"] * 2


@pytest.mark.parametrize(
    "builder",
    [
        BUILDER.replace("docker-container", "docker"),
        BUILDER.replace("linux/amd64*, linux/arm64", "linux/riscv64, linux/arm64/v9"),
    ],
)
def test_any_other_builder_is_left_alone(repository: Repository, builder: str) -> None:
    done = repository.upload("revolut", BUILDER=builder, DIGESTS="")
    assert done.returncode == 0, done.stderr
    assert repository.calls[0].startswith("build ")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"BUILD": "1", "METADATA": METADATA}, "the build failed, or the push"),
        ({"METADATA": "{}"}, "the builder did not say what it pushed"),
    ],
)
def test_a_builder_that_fails_leaves_the_deployment_alone(
    repository: Repository, environment: dict[str, str], line: str
) -> None:
    done = repository.upload("revolut", BUILDER=BUILDER, **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"upload-prod: {line}; deployment.yml is as it was"
    assert repository.deployment.read_text() == OLD


def untracked(repository: Repository) -> None:
    (repository.path / "new").touch()


def changed(repository: Repository) -> None:
    (repository.path / "Dockerfile").write_text("FROM other\n")


def without(program: str) -> Event:
    return lambda repository: (repository.programs / program).unlink()


def broken_manifests(repository: Repository) -> None:
    (repository.path / "manifests" / "base" / "service.yaml").unlink()
    repository.git("commit", "--quiet", "--all", "--message", "Break")


def another_image(repository: Repository) -> None:
    deployment = repository.path / "manifests" / "base" / "kustomization.yaml"
    deployment.write_text(deployment.read_text().replace("newTag: dev", "newTag: other"))
    repository.git("commit", "--quiet", "--all", "--message", "Use another image")


@pytest.mark.parametrize(
    ("happens", "org", "environment", "line", "calls"),
    [
        (None, "", {}, "say which organisation: make org=revolut upload-prod", 0),
        (untracked, "revolut", {}, "the working tree has changes that are in no commit", 0),
        (changed, "revolut", {}, "the working tree has changes that are in no commit", 0),
        (without("kubectl"), "revolut", {}, "kubectl is needed, and is not on the PATH", 0),
        (without("docker"), "revolut", {}, "docker is needed, and is not on the PATH", 0),
        (None, "revolut", {"BUILD": "1"}, "the build failed; deployment.yml is as it was", 1),
        (None, "revolut", {"PUSH": "1"}, "the push failed; deployment.yml is as it was", 2),
        (broken_manifests, "revolut", {}, "the manifests cannot be rendered; deployment.yml is", 3),
        (another_image, "revolut", {}, "the manifests do not use the image twice; deployment", 3),
    ],
)
def test_a_failure_is_one_clear_line_and_leaves_the_deployment_alone(
    repository: Repository,
    happens: Event | None,
    org: str,
    environment: dict[str, str],
    line: str,
    calls: int,
) -> None:
    if happens is not None:
        happens(repository)
    done = repository.upload(org, DIGESTS="", **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"upload-prod: {line}")
    assert repository.deployment.read_text() == OLD
    assert len(repository.calls) == calls
    # Nothing half-written stays behind.
    assert not list(repository.path.glob(".deployment*"))


def _docker_answers() -> bool:
    docker = find("docker")
    return (
        docker is not None and subprocess.run([docker, "info"], capture_output=True).returncode == 0
    )


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[int]:
    """The port of a registry on loopback, which Docker trusts without TLS."""
    if REGISTRY is None:
        pytest.skip("needs docker-registry to push to")
    if not _docker_answers():
        pytest.skip("needs a Docker daemon to build with")
    port = free_port()
    configuration = tmp_path / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'images'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    command = [REGISTRY, "serve", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _status(port, "/v2/") == 200)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    # What Docker pushes from its own store, and what it pushes from containerd's.
    kinds = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.index.v1+json",
    )
    try:
        connection.request("GET", path, headers={"Accept": ", ".join(kinds)})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_a_registry_has_what_the_deployment_names(repository: Repository, registry: int) -> None:
    docker = find("docker") or "docker"
    (repository.programs / "docker").unlink()
    (repository.programs / "docker").symlink_to(docker)
    daemon = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    org, away = (f"127.0.0.1:{port}/revolut" for port in (registry, free_port()))
    try:
        done = repository.upload(org, **daemon)
        assert done.returncode == 0, done.stderr
        image, *others = images(repository.deployment)
        assert others == [image]
        name, digest = image.split("@")
        assert name == f"{org}/hello"
        assert _status(registry, f"/v2/revolut/hello/manifests/{digest}") == 200

        written = repository.deployment.read_text()
        done = repository.upload(away, **daemon)
        assert done.returncode == 1
        assert "the push failed; deployment.yml is as it was" in done.stderr
        assert repository.deployment.read_text() == written
    finally:
        tags = [f"{where}/hello:1.2.3-{repository.revision[:12]}" for where in (org, away)]
        subprocess.run([docker, "image", "rm", "--force", *tags], capture_output=True)
