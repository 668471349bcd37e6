"""The service's idea and nothing around it: Falcon, and a statement for all who wait.

No request ids, no metrics, no deadlines, no way back from a broken connection.
"""

import json
import os

import falcon
import gevent
import psycopg2
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions

from scripts.bench.contestants.common import greeting, parse

READ = "SELECT username, date_of_birth FROM users WHERE username = ANY($1)"
WRITE = """
    INSERT INTO users (username, date_of_birth)
    SELECT * FROM unnest($1::text[], $2::date[]) AS new (username, date_of_birth)
    WHERE NOT EXISTS (
        SELECT FROM users AS old
        WHERE (old.username, old.date_of_birth) = (new.username, new.date_of_birth)
    )
    ON CONFLICT (username) DO UPDATE SET date_of_birth = EXCLUDED.date_of_birth
"""


def wait(connection):
    while (state := connection.poll()) != extensions.POLL_OK:
        (wait_read if state == extensions.POLL_READ else wait_write)(connection.fileno())


class Batches:
    """One connection, one statement at a time: whoever comes meanwhile shares the next."""

    def __init__(self, statement, execute):
        self._execute = execute
        connection = psycopg2.connect(os.environ["DB_URI"])
        connection.autocommit = True
        self._cursor = connection.cursor()
        self._cursor.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        self._cursor.execute(f"PREPARE it AS {statement}")
        self._waiting = {}
        self._busy = False

    def submit(self, name, value=None):
        waiter = gevent.hub.Waiter()
        self._waiting.setdefault(name, (value, []))[1].append(waiter)
        if not self._busy:
            self._busy = True
            gevent.spawn_raw(self._run)
        return waiter.get()

    def _run(self):
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            names = sorted(batch)
            values = [batch[name][0] for name in names]
            both = (names,) if values[0] is None else (names, values)
            self._cursor.execute(self._execute, both)
            found = dict(self._cursor.fetchall()) if self._cursor.description else {}
            gevent.get_hub().loop.run_callback(self._wake, batch, found)
        self._busy = False

    @staticmethod
    def _wake(batch, found):
        for name, (_, waiters) in batch.items():
            for waiter in waiters:
                waiter.switch(found.get(name))


class Hello:
    def __init__(self):
        extensions.set_wait_callback(wait)
        self._reads = Batches(READ, "EXECUTE it(%s)")
        self._writes = Batches(WRITE, "EXECUTE it(%s, %s::date[])")

    def on_get(self, req, resp, username):
        born = self._reads.submit(username)
        if born is None:
            raise falcon.HTTPNotFound
        resp.data = json.dumps({"message": greeting(username, born)}).encode()

    def on_put(self, req, resp, username):
        try:
            born = parse(req.stream.read())
        except ValueError as ex:
            raise falcon.HTTPBadRequest from ex
        self._writes.submit(username, born)
        resp.status = falcon.HTTP_204


def wsgi():
    app = falcon.App()
    app.add_route("/hello/{username}", Hello())
    return app
