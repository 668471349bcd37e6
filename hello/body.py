"""Reading a request body: bounded in size, and in time by the server."""

import falcon

from hello.problems import BodyTimeout, BodyTooLarge, EncodedBody, InvalidBody

#: Bytes of a body, at most. The body of a PUT has about 30.
MAX_BYTES = 4096


def read_body(req: falcon.Request) -> bytes:
    """The whole body, whatever its Content-Type.

    The server's stream raises TimeoutError when the client is too slow, and other
    exceptions when the framing is broken or the client is gone.

    Raises BodyTooLarge, BodyTimeout, EncodedBody, InvalidBody.
    """
    encoding = req.env.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.strip().lower() != "identity":
        raise EncodedBody("A body is read as it is; do not send a Content-Encoding.")
    length = req.content_length
    if length is None:
        # A chunked body can be read only if the server ends the stream itself.
        length = MAX_BYTES + 1 if req.env.get("wsgi.input_terminated") else 0
        exact = False
    else:
        exact = True
    if exact and length > MAX_BYTES:
        raise BodyTooLarge(f"A body has at most {MAX_BYTES} bytes.")
    try:
        body: bytes = req.stream.read(length) if length else b""
    except TimeoutError as ex:
        raise BodyTimeout("The body did not arrive in time.") from ex
    except Exception as ex:
        raise InvalidBody("The body could not be read to its end.") from ex
    if len(body) > MAX_BYTES:
        raise BodyTooLarge(f"A body has at most {MAX_BYTES} bytes.")
    if exact and len(body) < length:
        raise InvalidBody("The body is shorter than its Content-Length.")
    return body
