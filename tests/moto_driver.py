"""moto's S3 server, its writes one after another.

moto compares an ETag and stores the object in two steps, and its server has threads: of two conditional writes at the
same instant both can succeed, as happened to two writers within a few hundred generations; no real store allows that.
In: the descriptor of a socket that listens. Out: the server behind it, in the background, until stdin ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

WRITES = {"PUT", "POST", "DELETE"}


def one_after_another(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in WRITES:
            return app(environ, start_response)
        with lock:
            return list(app(environ, start_response))

    return answer


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    threading.Thread(target=end_with_stdin, daemon=True).start()

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    dispatcher = one_after_another(DomainDispatcherApplication(create_backend_app))
    make_server("127.0.0.1", 0, dispatcher, threaded=True, fd=int(sys.argv[1])).serve_forever()
