"""Enough of Kubernetes for scripts/e2e.sh: pods are real processes behind a real balancer.

It is a stand-in. What `kubectl` is asked, how a rollout proceeds and how a pod ends is as in
Kubernetes; that Kubernetes accepts the manifests is not shown by it.
"""

import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.balancer import KubeProxy
from tests.support.processes import eventually
from tests.support.service import Service, migrate

#: Seconds until an autoscaler has seen a new Deployment.
AUTOSCALER_LOOKS = 15

KUBECTL = """#!/bin/sh
exec '{python}' -S '{client}' "$@"
"""

CLIENT = """
import json, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
server.sendall(json.dumps(sys.argv[1:]).encode())
server.shutdown(socket.SHUT_WR)
answer = json.loads(b"".join(iter(lambda: server.recv(65536), b"")))
sys.stdout.write(answer["out"])
sys.stderr.write(answer["error"])
sys.exit(answer["code"])
"""


class Refused(Exception):
    """What kubectl answers with an error."""


@dataclass(eq=False)
class Pod:
    name: str
    revision: int
    service: Service
    ready: bool = False
    ending: threading.Thread | None = field(default=None, repr=False)


class Kubernetes:
    """A cluster of one namespace and one Deployment, and a `kubectl` in `programs`.

    The seconds of `preStop`, and those until the autoscaler looks, are multiplied by `scale`. If
    `brutal`, a pod that is to end is killed at once, before anybody stops sending it requests.
    """

    def __init__(self, directory: Path, *, scale: float = 0.1, brutal: bool = False) -> None:
        self._directory = directory
        self._scale = scale
        self._brutal = brutal
        self._changed = threading.Condition()
        self._numbers = iter(range(1, 1000))
        self._closing = False
        #: Objects by kind, as they were applied.
        self.objects: dict[str, dict] = {}
        #: The files of each Secret.
        self.secrets: dict[str, Path] = {}
        self.pods: list[Pod] = []
        #: The revisions that were wanted, the last is now; how many pods were ready when each was
        #: asked for, and its image.
        self.revisions: list[int] = []
        self.ready_before: list[int] = []
        self.images: list[str] = []
        #: What keeps pods from starting.
        self.error: BaseException | None = None
        #: The pod that each revision is made of.
        self._templates: dict[int, dict[str, Any]] = {}
        #: A Deployment without `replicas` has one pod, until the autoscaler sees to it.
        self._scaled = False
        self.balancer = KubeProxy()

        self.programs = directory / "bin"
        self.programs.mkdir()
        path = str(directory / "socket")
        client = directory / "client.py"
        client.write_text(CLIENT.format(socket=path))
        kubectl = self.programs / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, client=client))
        kubectl.chmod(0o755)
        self._server = socketserver.ThreadingUnixStreamServer(path, self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._controller = threading.Thread(target=self._control, daemon=True)
        self._controller.start()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._controller.join(60)
        self._server.shutdown()
        self._server.server_close()
        for pod in list(self.pods):
            if pod.ending is not None:
                pod.ending.join(60)
            with pod.service:
                pass
        self.balancer.close()

    def kubectl(self, *arguments: str) -> str:
        """What `kubectl` prints; raises Refused."""
        words = [word for word in arguments if not word.startswith("-")]
        options = dict(word.lstrip("-").partition("=")[::2] for word in arguments if word[0] == "-")
        match words:
            case ["get", "name", manifest] if "f" in options:
                return self._present(manifest)
            case ["get", "pods", _, "name"]:
                return "".join(f"pod/{pod.name}\n" for pod in self.pods)
            case ["get", "deployment", "revolut", query] if "readyReplicas" in query:
                return str(len(self._ready()) or "")
            case ["get", "deployment", "revolut", query] if "image" in query:
                return self.images[-1]
            case ["get", "horizontalpodautoscaler", "revolut", query] if "minReplicas" in query:
                return str(self._least())
            case ["get", "service", "revolut", query] if "ingress" in query:
                return ""  # nobody gives out addresses here
            case ["get", "service", "revolut", query] if "nodePort" in query:
                return str(self.balancer.port)
            case ["get", "nodes", _]:
                return "127.0.0.1"
            case ["create", "secret", "generic", name]:
                return self._create_secret(name, options["from-literal"])
            case ["apply", manifest]:
                return self._apply(manifest)
            case ["rollout", "restart", "deployment/revolut"]:
                return self._roll(next(self._numbers), self._templates[self.revisions[-1]])
            case ["rollout", "undo", "deployment/revolut"]:
                revision = self.revisions[-2]
                return self._roll(revision, self._templates[revision])
            case ["rollout", "status", "deployment/revolut"]:
                eventually(self._rolled_out, within=120, message="the rollout did not end")
                return "successfully rolled out\n"
            case ["wait", *names] if options.get("for") == "delete":
                eventually(lambda: not self._named(names), within=120)
                return ""
            case ["delete", "secret", name]:
                self.secrets.pop(name, None)
                return ""
            case ["delete", manifest] if "f" in options:
                return self._delete(manifest)
        raise Refused(f"this stand-in does not know: kubectl {' '.join(arguments)}")

    @property
    def replicas(self) -> int:
        if "Deployment" not in self.objects or not self.revisions:
            return 0
        return self._least() if self._scaled else 1

    def _least(self) -> int:
        return int(self.objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"])

    def _ready(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.ready and pod.ending is None]

    def _present(self, manifest: str) -> str:
        kinds = [document["kind"] for document in _documents(manifest)]
        return "".join(f"{kind.lower()}/revolut\n" for kind in kinds if kind in self.objects)

    def _create_secret(self, name: str, literal: str) -> str:
        if name in self.secrets:
            raise Refused(f'secrets "{name}" already exists')
        directory = self._directory / f"secret-{next(self._numbers)}"
        directory.mkdir()
        key, _, value = literal.partition("=")
        (directory / key).write_text(value)
        self.secrets[name] = directory
        return f"secret/{name} created\n"

    def _apply(self, manifest: str) -> str:
        with self._changed:
            self.objects |= {document["kind"]: document for document in _documents(manifest)}
        template = self.objects["Deployment"]["spec"]["template"]["spec"]
        return self._roll(next(self._numbers), template)

    def _delete(self, manifest: str) -> str:
        with self._changed:
            for document in _documents(manifest):
                self.objects.pop(document["kind"], None)
            self._changed.notify_all()
        return ""

    def _roll(self, revision: int, template: dict[str, Any]) -> str:
        with self._changed:
            self._templates[revision] = template
            self.revisions.append(revision)
            self.ready_before.append(len(self._ready()))
            self.images.append(template["containers"][0]["image"])
            self._changed.notify_all()
        return ""

    def _rolled_out(self) -> bool:
        if self.error is not None:
            raise Refused(f"a pod does not start: {self.error}")
        with self._changed:
            serving = [pod for pod in self.pods if pod.ending is None]
            current = [pod for pod in serving if pod.ready and pod.revision == self.revisions[-1]]
            return len(current) == len(serving) == self.replicas

    def _named(self, names: list[str]) -> list[Pod]:
        return [pod for pod in self.pods if f"pod/{pod.name}" in names]

    def _control(self) -> None:
        """What the Deployment's controller does, with maxSurge 1 and maxUnavailable 0."""
        while True:
            with self._changed:
                if self._closing:
                    return
                serving = [pod for pod in self.pods if pod.ending is None]
                wanted = self.revisions[-1] if self.revisions else 0
                current = [pod for pod in serving if pod.revision == wanted]
                old = [pod for pod in serving if pod.revision != wanted]
                start = len(current) < self.replicas and len(serving) <= self.replicas
                end = (old or serving)[:1] if len(serving) > self.replicas else []
                if not start and not end:
                    self._changed.wait(0.1)
                    continue
            try:
                if end:
                    self._end(end[0])
                else:
                    self._start(wanted)
            except BaseException as ex:
                self.error = ex
                return

    def _start(self, revision: int) -> None:
        template = self._templates[revision]
        (container,) = template["containers"]
        (volume,) = (v for v in template["volumes"] if "secret" in v)
        secret = self.secrets[volume["secret"]["secretName"]]
        # Where each listens is for this machine to say.
        settings = {
            variable["name"]: variable["value"]
            for variable in container["env"]
            if variable["name"] not in ("HOST", "PORT", "ADMIN_PORT")
        }
        done = migrate((secret / "DB_URI").read_text())
        assert done.returncode == 0, done.stderr
        service = Service(SECRETS_DIR=str(secret), **settings)
        pod = Pod(f"revolut-{revision}-{next(self._numbers)}", revision, service)
        with self._changed:
            self.pods.append(pod)
        startup = container["startupProbe"]
        service.wait_until(
            container["readinessProbe"]["httpGet"]["path"],
            within=startup["periodSeconds"] * startup["failureThreshold"],
        )
        with self._changed:
            pod.ready = True
            self.balancer.add(pod.name, service)
            if not self._scaled:
                autoscaler = threading.Timer(AUTOSCALER_LOOKS * self._scale, self._autoscale)
                autoscaler.daemon = True
                autoscaler.start()

    def _autoscale(self) -> None:
        with self._changed:
            self._scaled = True
            self._changed.notify_all()

    def _end(self, pod: Pod) -> None:
        template = self._templates[pod.revision]
        (container,) = template["containers"]
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"] * self._scale

        def end() -> None:
            if self._brutal:
                for pid in (pod.service.process.pid, *pod.service.workers):
                    os.kill(pid, signal.SIGKILL)
                time.sleep(pause)
            self.balancer.drop(pod.name)
            if not self._brutal:
                time.sleep(pause)
            pod.service.stop(within=template["terminationGracePeriodSeconds"])
            with self._changed:
                self.pods.remove(pod)
                self._changed.notify_all()

        with self._changed:
            pod.ending = threading.Thread(target=end, daemon=True)
            pod.ending.start()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        cluster = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                answer = {"out": "", "error": "", "code": 0}
                try:
                    answer["out"] = cluster.kubectl(*json.loads(self.rfile.read()))
                except (Refused, AssertionError) as ex:
                    answer |= {"error": f"error: {ex}\n", "code": 1}
                self.wfile.write(json.dumps(answer).encode())

        return Handler


def _documents(manifest: str) -> Iterator[dict]:
    yield from yaml.safe_load_all(Path(manifest).read_text())
