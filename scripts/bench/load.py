"""Asking: wrk for servers, pgbench for PostgreSQL itself."""

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

WORKLOADS = {
    "get": "GET",
    "put": "PUT, always another date",
    "put-same": "PUT, the stored date",
    "mix": "90 % GET, 10 % PUT",
    "hot": "90 % GET, 10 % PUT, all of one user",
    "get-paced": "GET, 8 000 a second",
}

#: Requests per second of the workload that does not wait for answers before it asks again.
PACE = 8000

#: Those that leave other dates behind than they found.
CHANGING = {"put", "mix", "hot"}

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Load:
    """What the load generator saw. Times are in ms."""

    requests: int
    seconds: float
    p50: float
    p99: float
    #: Answers from 400 on, failed connections, reads and writes, and timeouts (2 s).
    errors: int


def wrk(port: int, workload: str, connections: int, seconds: int, users: int) -> Load:
    """Ask the server on `port` over keep-alive connections, each as fast as it answers."""
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--script", _HERE / "requests.lua"),
            *(f"http://127.0.0.1:{port}", "--", workload, str(users)),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    return Load(**json.loads(done.stdout.splitlines()[-1]))


def h2load(port: int, connections: int, seconds: int, users: int) -> Load:
    """Ask the server on `port` PACE times a second, however fast it answers.

    Each connection sends its share, spread evenly. One whose answer is late sends the next
    request when it has come, and catches up then: so with few connections the wait of a request
    that could not be sent is not seen.
    """
    with tempfile.TemporaryDirectory() as directory:
        log, uris = Path(directory) / "log", Path(directory) / "uris"
        step = max(1, users // 1000)
        names = [f"user{number}" for number in range(0, users, step)]
        uris.write_text("".join(f"http://127.0.0.1:{port}/hello/{name}\n" for name in names))
        done = subprocess.run(
            [
                *("h2load", "--h1", "--clients", str(connections), "--duration", str(seconds)),
                *("--rps", str(PACE / connections), "--input-file", uris, "--log-file", log),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        if done.returncode or not log.exists():
            raise RuntimeError(f"h2load failed: {done.stdout}{done.stderr}")
        # Each line: when it was sent, the status, and how long the answer took, both times in µs.
        lines = [line.split() for line in log.open()]
    times = [int(time) / 1e3 for _, _, time in lines]
    errors = sum(not 200 <= int(status) < 400 for _, status, _ in lines)
    cuts = quantiles(times, n=100)
    return Load(len(lines), float(seconds), cuts[49], cuts[98], errors)


#: Statements for the same work; ":number" is a variable of pgbench.
_FIND = """
\\set number random(0, {last})
SELECT date_of_birth FROM users WHERE username = 'user' || :number::int;
"""
_SAVE = """
\\set number random(0, {last})
\\set day {day}
INSERT INTO users (username, date_of_birth)
VALUES ('user' || :number::int, date '1970-01-01' + :day::int)
ON CONFLICT (username) DO UPDATE SET date_of_birth = EXCLUDED.date_of_birth
WHERE users.date_of_birth <> EXCLUDED.date_of_birth;
"""
_OTHER_DAY, _SAME_DAY = "random(0, 9999)", ":number % 10000"

#: pgbench's scripts with their weights.
_SCRIPTS = {
    "get": [(_FIND, 1)],
    "put": [(_SAVE.replace("{day}", _OTHER_DAY), 1)],
    "put-same": [(_SAVE.replace("{day}", _SAME_DAY), 1)],
    "mix": [(_FIND, 9), (_SAVE.replace("{day}", _OTHER_DAY), 1)],
    "hot": [(_FIND, 9), (_SAVE.replace("{day}", _OTHER_DAY), 1)],
}


def pgbench(
    program: Path, uri: str, workload: str, connections: int, seconds: int, users: int
) -> Load:
    """Run prepared statements, one for each request, without any server in between."""
    last = 0 if workload == "hot" else users - 1
    with tempfile.TemporaryDirectory() as directory:
        command: list[str | Path] = [
            *(program, "--no-vacuum", "--protocol", "prepared", "--client", str(connections)),
            *("--time", str(seconds)),
            # For percentiles: pgbench itself knows the average alone.
            *("--log", "--log-prefix", f"{directory}/log", "--sampling-rate", "0.1"),
        ]
        for number, (script, weight) in enumerate(_SCRIPTS[workload]):
            file = Path(directory) / f"{number}.sql"
            file.write_text(script.format(last=last))
            command += ["--file", f"{file}@{weight}"]
        done = subprocess.run([*command, uri], capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode:
            raise RuntimeError(f"pgbench failed: {done.stdout}{done.stderr}")
        # Each line: client, transaction, time in µs, …
        lines = [line for log in Path(directory).glob("log.*") for line in log.open()]
    times = [int(line.split()[2]) / 1e3 for line in lines]
    if len(times) < 2:
        raise RuntimeError(f"pgbench was too slow to be measured: {done.stdout}")
    cuts = quantiles(times, n=100)
    requests = int(_said("number of transactions actually processed: ([0-9]+)", done.stdout))
    failed = int(_said("number of failed transactions: ([0-9]+)", done.stdout))
    rate = float(_said("tps = ([0-9.]+)", done.stdout))
    return Load(requests, requests / rate, cuts[49], cuts[98], failed)


def _said(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    assert match, output
    return match[1]
