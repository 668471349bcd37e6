"""Falcon and Peewee as in Peewee's manual: a pool, and a connection for each request."""

import os

import falcon
from gevent.socket import wait_read, wait_write
from peewee import CharField, DateField, Model
from playhouse.pool import PooledPostgresqlDatabase, PooledSqliteDatabase
from psycopg2 import extensions

from scripts.bench.contestants.common import greeting, parse


def wait(connection) -> None:
    """What psycogreen does: let other greenlets run while PostgreSQL works."""
    while (state := connection.poll()) != extensions.POLL_OK:
        (wait_read if state == extensions.POLL_READ else wait_write)(connection.fileno())


extensions.set_wait_callback(wait)

uri = os.environ["DB_URI"]
# A request waits up to 10 s for one of the connections.
pool = {"max_connections": 32, "timeout": 10}
if uri == "sqlite://":
    database = PooledSqliteDatabase("file:/users?vfs=memdb", uri=True, **pool)
else:
    database = PooledPostgresqlDatabase(uri, **pool)


class User(Model):
    username = CharField(max_length=64, primary_key=True)
    date_of_birth = DateField()

    class Meta:
        database = database
        table_name = "users"


class PeeweeConnection:
    def process_request(self, req, resp):
        database.connect()

    def process_response(self, req, resp, resource, req_succeeded):
        if not database.is_closed():
            database.close()


class Hello:
    def on_get(self, req, resp, username):
        user = User.get_or_none(User.username == username)
        if user is None:
            raise falcon.HTTPNotFound
        resp.media = {"message": greeting(username, user.date_of_birth)}

    def on_put(self, req, resp, username):
        try:
            born = parse(req.bounded_stream.read())
        except ValueError as ex:
            raise falcon.HTTPBadRequest from ex
        User.insert(username=username, date_of_birth=born).on_conflict(
            conflict_target=[User.username],
            update={User.date_of_birth: born},
            where=(User.date_of_birth != born),
        ).execute()
        resp.status = falcon.HTTP_204


if uri == "sqlite://":
    # The database lives as long as a connection to it, and the pool keeps this one.
    with database:
        database.create_tables([User])

app = falcon.App(middleware=[PeeweeConnection()])
app.add_route("/hello/{username}", Hello())
