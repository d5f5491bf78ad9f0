#!/usr/bin/env bash
# openvino 2026.4.1 with openvino-telemetry 2025.2.0, seen 2026-11-30: `import openvino` sends its maker a note from a
# process that multiprocessing starts. Where such processes are not forked (Linux from Python 3.14 on, macOS), that
# process runs the file of the program again, up to its own `import openvino`: a script without the guard for `__main__`
# does its first half twice, and in the end keeps multiprocessing's helper processes. Here nothing leaves the machine:
# the proxy is a closed port, and the home folder, in which the note's client id is kept, is a new one.
# Output seen: fork: the script ran 1 time(s)
#              forkserver: the script ran 2 time(s)
#              spawn: the script ran 2 time(s)
# left below the home folder: intel/openvino_ga_cid intel/stats
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check openvino==2026.4.1 openvino-telemetry==2025.2.0 numpy==2.3.5
cat > "$place/script.py" <<'PY'
import multiprocessing
import sys

multiprocessing.set_start_method(sys.argv[1], force=True)  # Python 3.14's own on Linux is forkserver
with open(sys.argv[2], "a") as log:
    log.write("ran\n")
import openvino
import time

time.sleep(8)  # a program that goes on for a while
PY
mkdir "$place/home"
for method in fork forkserver spawn; do
    env HOME="$place/home" https_proxy=http://127.0.0.1:9 "$place/venv/bin/python" "$place/script.py" $method "$place/$method" 2>"$place/errors"
    echo "$method: the script ran $(wc -l <"$place/$method") time(s)"
done | tee "$place/said"
left=$(cd "$place/home" && find . -type f | sed 's#^\./##' | sort | tr '\n' ' ')
echo "left below the home folder: $left"
diff "$place/said" - <<'TXT'
fork: the script ran 1 time(s)
forkserver: the script ran 2 time(s)
spawn: the script ran 2 time(s)
TXT
test "$left" = "intel/openvino_ga_cid intel/stats "
