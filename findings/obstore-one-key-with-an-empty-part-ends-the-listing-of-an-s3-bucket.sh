#!/usr/bin/env bash
# obstore 0.12.1 (Rust object_store), seen 2026-11-29 against moto 5.2.5: S3 takes any key, and boto3 lists these three
# buckets. obstore raises InvalidPathError for a whole listing as soon as one key has an empty part (`a//b`), and takes
# the slashes at the ends of others away: `/y` and `x/` are listed as `y` and `x`, keys that are not there.
# Output seen: boto3 ['a/b', 'c']  obstore ['a/b', 'c']
#              boto3 ['a//b', 'c']  obstore InvalidPathError
#              boto3 ['/y', 'x/']  obstore ['y', 'x']
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check obstore==0.12.1 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5
"$place/venv/bin/python" - <<'PY'
import boto3
import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

server = ThreadedMotoServer("127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
address = f"http://{host}:{port}"
keys = dict(aws_access_key_id="a", aws_secret_access_key="b")
client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)


def listed(bucket, names):
    client.create_bucket(Bucket=bucket)
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=b"text")
    theirs = [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]]
    store = S3Store(bucket, endpoint=address, region="us-east-1", client_options={"allow_http": True}, **keys)
    try:
        ours = [found["path"] for page in obstore.list(store) for found in page]
    except Exception as error:
        ours = type(error).__name__
    print(f"boto3 {theirs}  obstore {ours}")
    return theirs, ours


plain = listed("plain", ["a/b", "c"])
empty = listed("empty-part", ["a//b", "c"])
slash = listed("slashes", ["/y", "x/"])
server.stop()
assert plain == (["a/b", "c"], ["a/b", "c"])
assert empty[0] == ["a//b", "c"] and isinstance(empty[1], str), "the listing comes to its end now"
assert slash[0] == ["/y", "x/"] and slash[1] == ["y", "x"], "the slashes are there now"
PY
