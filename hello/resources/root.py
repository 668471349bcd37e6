import falcon


class Root:
    """`/`: a greeting."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.data = b"Hello, world!"

    on_head = on_get
