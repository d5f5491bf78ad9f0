"""Known sources of one scope that its walk did not yield: excluded, stale because their folder is unseen, or gone.

In: those sources, what the walk could not see. Out: marks and warnings in the plan; InputError where a root is unseen.
Not here: what becomes of those that are gone (gone.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from embedcli.errors import InputError
from embedcli.run.looking.gone import ancestors
from embedcli.run.plan import Plan
from embedcli.run.tasks import LastSeen
from embedcli.sources.filters import Filter
from embedcli.sources.roots import Scope
from embedcli.sources.walk import WalkProblems
from embedcli.urls import is_url

LOOK_INTO = {
    "s3": "check its name, AWS_ENDPOINT_URL, AWS_REGION and the credentials",
    "gs": "check its name and GOOGLE_APPLICATION_CREDENTIALS",
}
"""What to do about a bucket that cannot be listed."""


class Missing:
    """The known sources of one scope that its walk did not yield, and the mount points that it had before."""

    def __init__(self, plan: Plan, scope: Scope, mounts: Sequence[str], *, rebuilding: bool) -> None:
        self._plan = plan
        self._scope = scope
        self._mounts = mounts
        self._rebuilding = rebuilding

    def judge(self, missing: Sequence[LastSeen], problems: WalkProblems) -> None:
        """Decide for each of them: excluded, stale (its folder is unseen), or gone. Raises InputError."""
        visited = [mount for mount in self._mounts if self._scope.holds(mount)]
        lost = {mount: "io" for mount in visited if mount not in problems.mounts}
        unseen = lost | problems.unlisted
        first = {folder: number for number, folder in enumerate(unseen)}
        filters = Filter(self._scope.root, ignore_files=problems.ignore_files)
        waited_for: set[str] = set()
        for prior in missing:
            key = (self._scope.root.id, prior.path)
            above = (folder for folder in ancestors(prior.path.rpartition("/")[0]) if folder in unseen)
            folder = min(above, key=first.__getitem__, default=None)
            if self._scope.root.selection is None and filters.leaves_out(prior.path):
                self._plan.excluded.add(key)
            elif folder is not None:
                waited_for.add(folder)
                self._plan.keep(key, prior, why=unseen[folder])
            else:
                self._plan.gone.add(key)
        self._note_unseen(lost, problems, waited_for)
        self._plan.bare_folders += problems.bare_folders
        # a lost mount point is remembered as long as something below it waits for it
        mounts = {mount for mount in self._mounts if mount not in visited or mount in waited_for}
        self._plan.mounts[self._scope.root.id] = tuple(sorted(mounts | set(problems.mounts)))

    def _note_unseen(self, lost: Mapping[str, str], problems: WalkProblems, waited_for: Collection[str]) -> None:
        unlisted, told = problems.unlisted, problems.details
        reasons = {folder: "was a mount point and is none now" for folder in lost if folder in waited_for}
        reasons |= {
            folder: f"cannot be listed ({told.get(folder, reason)})"
            for folder, reason in unlisted.items()
            if reason != "vanished" or folder in told
        }
        reasons |= {folder: "vanished" for folder in unlisted if folder not in reasons and folder in waited_for}
        root = self._scope.root.path
        self._plan.unlisted |= {f"{root}/{folder}".rstrip("/"): why for folder, why in reasons.items()}
        if self._rebuilding and waited_for:
            first = min(self._plan.unlisted)
            raise InputError(f"`{first}` {self._plan.unlisted[first]}, and a rebuild needs every source", mended(root))
        if "" in unlisted and not waited_for:
            look = LOOK_INTO.get(root.partition("://")[0], f"look at it with `ls -la '{root}'`")
            raise InputError(f"`{root}` {reasons.get('', 'vanished')}", look)


def mended(place: str) -> str:
    """What to do about a place that cannot be listed."""
    what = "mend the access to the bucket" if is_url(place) else "mount it or mend its permissions"
    return f"{what}, then run the same command again"
