"""TODO run.publish."""

from __future__ import annotations

FIRST_PUBLISH_EVERY_S = 3600.0
