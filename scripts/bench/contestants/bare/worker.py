"""The barest worker that answers wrk: no deadline, no check, no limit. It is no server."""

import io

from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import GeventWorker

from hello.server.response import http_date


class Bare(GeventWorker):
    def handle(self, listener, client, peer):
        host, port = listener.getsockname()
        base = base_environ(self.cfg) | {
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
        }
        started = []

        def start_response(status, headers, exc_info=None):
            started[:] = status, headers

        with client:
            while data := client.recv(8192):
                if data.startswith(b"PUT") and data.endswith(b"\r\n\r\n"):
                    data += client.recv(8192)
                head, _, body = data.partition(b"\r\n\r\n")
                environ = base.copy()
                line = head.partition(b"\r\n")[0].decode()
                environ["REQUEST_METHOD"], environ["PATH_INFO"], _ = line.split(" ")
                environ["CONTENT_LENGTH"] = str(len(body))
                environ["wsgi.input"] = io.BytesIO(body)
                content = b"".join(self.wsgi(environ, start_response))
                status, headers = started
                lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
                start = f"HTTP/1.1 {status}\r\nDate: {http_date()}\r\n{lines}\r\n"
                client.send(start.encode() + content)
