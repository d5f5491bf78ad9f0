"""Run a command with a terminal as its stdin, stdout and stderr.

In: a command. Out: what it prints, and its exit code.
"""

from __future__ import annotations

import os
import pty
import sys

if __name__ == "__main__":
    sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
