"""Falcon's share: the routes and a body to read, but nothing to look up."""

import falcon


class Hello:
    def on_get(self, req, resp, username):
        resp.data = b'{"message": "Hello, world! Happy birthday!"}'

    def on_put(self, req, resp, username):
        req.bounded_stream.read()
        resp.status = falcon.HTTP_204


app = falcon.App()
app.add_route("/hello/{username}", Hello())
