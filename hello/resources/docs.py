"""The description of the API, and a page to read and try it.

Both are files of the package, read once. See docs/decisions/docs-page.md.
"""

from importlib.resources import files

import falcon

#: The policy of the page: it loads its own files and asks this service; nothing inline, nothing
#: from elsewhere, in no other page's frame; scripts cannot make HTML of strings.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

#: The files of the page, with their media types.
ASSETS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def _read(name: str) -> bytes:
    return files("hello").joinpath(name).read_bytes()


class OpenAPI:
    """`/openapi.yaml` and `/openapi.json`: the same description."""

    def __init__(self, name: str, content_type: str) -> None:
        self._data = _read(name)
        self._content_type = content_type

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = self._content_type
        resp.data = self._data

    on_head = on_get


class Page:
    """`/docs`: the page."""

    def __init__(self) -> None:
        self._data = _read("page/page.html")

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.data = self._data

    on_head = on_get


class Asset:
    """`/docs/{asset}`: what the page is made of."""

    def __init__(self) -> None:
        self._data = {name: _read(f"page/{name}") for name in ASSETS}

    def on_get(self, req: falcon.Request, resp: falcon.Response, asset: str) -> None:
        if asset not in ASSETS:
            raise falcon.HTTPRouteNotFound
        resp.content_type = ASSETS[asset]
        resp.data = self._data[asset]

    on_head = on_get
