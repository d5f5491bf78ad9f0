"""What a bucket costs: its listing, as a table, no test.

In: how many keys (default: 1,000,000), how many seconds the server waits before each page of a thousand (default: 0).
Out: a line on stdout: seconds, processor time and memory of the walk of a bucket with so many objects, filters
included; the server does nothing but make pages, on another core where there is one. The memory is the most that the
process had, less what it had before.
Run: `PYTHONPATH=. python tests/bench_bucket.py [KEYS] [SECONDS]`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEYS = 1_000_000
PER_PAGE = 1_000
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-29T16:00:00.000Z"
    "</LastModified><ETag>&quot;{number:032x}&quot;</ETag><Size>{number}</Size><StorageClass>STANDARD</StorageClass>"
    "</Contents>"
)


def folder_of(number: int) -> str:
    """`00001-old` comes before `00001` among keys, and behind it in a walk."""
    return f"{number // 200:05d}{'' if number // 100 % 2 else '-old'}"


def key_of(number: int) -> str:
    return f"docs/{folder_of(number)}/report no. {number:07d}.pdf"


class Pages(BaseHTTPRequestHandler):
    """Gives out pages; the token is the number of the next key."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        time.sleep(self.server.page_s)
        after = asked.get("start-after", [""])[0]
        first = int(asked.get("continuation-token", [bisect_right(range(self.server.keys), after, key=key_of)])[0])
        last = min(first + PER_PAGE, self.server.keys)
        entries = "".join(ENTRY.format(key=key_of(number), number=number) for number in range(first, last))
        more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < self.server.keys else ""
        body = f"<ListBucketResult><Name>b</Name>{entries}{more}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


def serve(keys: int, page_s: float) -> None:
    """Print the port, then answer."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.keys, server.page_s = keys, page_s
    print(server.server_address[1], flush=True)
    server.serve_forever()


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class Peak:
    """The most memory that this process has while the block runs."""

    def __enter__(self) -> Peak:
        self.mb = self.before_mb = resident_mb()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.mb = max(self.mb, resident_mb())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measure(keys: int, page_s: float) -> None:
    """Print the table; in a process of its own, with a server of its own."""
    from embedcli.sources.buckets.open import bucket_of
    from embedcli.sources.buckets.walk import walk_bucket
    from embedcli.sources.walk import WalkProblems, root_of

    command = [sys.executable, __file__, "serve", str(keys), str(page_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    try:
        root, problems = root_of("s3://b/docs"), WalkProblems()
        next(bucket_of(root.path)[0].pages(""))  # what is imported and opened once counts for none
        wall_s, cpu_s = time.monotonic(), time.process_time()
        with Peak() as peak:
            found = sum(1 for _ in walk_bucket(root, below="", max_text_bytes=1 << 30, problems=problems))
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    finally:
        server.kill()
        server.wait()
    assert not problems.unlisted, problems.details
    print(f"{found:,} keys: {wall_s:.1f} s, {cpu_s:.1f} CPU s, {peak.mb - peak.before_mb:.0f} MB more", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]))
    else:
        measure(int((sys.argv[1:] or [str(KEYS)])[0]), float((sys.argv[2:] or ["0"])[0]))
