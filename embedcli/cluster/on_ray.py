"""`--workers ray://auto`: the tools of a run whose workers Ray starts.

In: the value of the flag, the tools and flags of the run. Out: the same tools with a workforce; model and device are
chosen for the machines of the cluster, not for this one. Nothing is connected to before there is work.
Not here: Ray itself (ray_transport.py), the flag on the command line (cli/values/workers.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from embedcli.config import CardFlags, CpuFlags, Workers
from embedcli.engines import choose
from embedcli.errors import EngineError, UsageError
from embedcli.report import Say
from embedcli.run.tools import Tools, make_tools

if TYPE_CHECKING:
    from embedcli.cluster.transport import Transport
    from embedcli.config import Options

WAIT_S = 600.0


def on_ray(tools: Tools, workers: Workers, *, engine: str, card: CardFlags, cpu: CpuFlags, say: Say) -> Tools:
    """The tools of a run over the workers of a Ray cluster. Raises EngineError where Ray is not installed."""
    if find_spec("ray") is None:
        raise EngineError("Ray is not installed", "install it with `pip install 'embedcli[ray]'`, on every machine")
    if os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        raise client_refused(os.environ["RAY_ADDRESS"])
    force = RayWorkforce(workers, engine, card, cpu)
    return dataclasses.replace(
        tools,
        resolve=lambda asked, memory: choose.resolve_for(
            asked, memory, has_gpu=force.device_of(asked) == "cuda", say=say
        ),
        device_kind=force.device_of,
        workforce=force,
    )


def client_refused(address: str) -> UsageError:
    return UsageError(
        f"`{address}` is the address of a Ray client, through which every message would go twice",
        "run the command on a machine of the cluster, with `--workers ray://auto`",
    )


class RayWorkforce:
    """Workers that Ray starts: one a card, or on CPUs one for as many as the smallest machine has."""

    wait_s = WAIT_S

    def __init__(self, workers: Workers, engine: str, card: CardFlags, cpu: CpuFlags) -> None:
        self.least = workers.least
        self._most = workers.most
        self._engine = engine
        self._card = card
        self._cpu = cpu
        self._device = ""

    def device_of(self, asked: Options) -> str:
        """The kind of device that the workers have."""
        if not self._device:
            self._device = asked.device or ("cuda" if any(node.get("GPU") for node in self._nodes()) else "cpu")
        return self._device

    def _nodes(self) -> list[dict[str, float]]:
        from embedcli.cluster import ray_transport

        ray_transport.connect()
        return ray_transport.nodes()

    @property
    def _cores(self) -> float:
        return min((node["CPU"] for node in self._nodes() if node.get("CPU")), default=1.0)

    @property
    def tools_there(self) -> Callable[..., Tools]:
        cpu = self._cpu
        if self._device == "cpu" and cpu.threads is None:
            cpu = dataclasses.replace(cpu, threads=int(self._cores))
        return partial(make_tools, self._engine, card=self._card, cpu=cpu)

    def start(self, device: str) -> Transport:
        nodes, self._device = self._nodes(), device
        from embedcli.cluster.ray_transport import RayTransport

        if device == "cuda":
            most = self._most or max(1, round(sum(node.get("GPU", 0.0) for node in nodes)))
            return RayTransport(most=most, cpus=0, gpus=1)
        cores = self._cores
        most = self._most or max(1, round(sum(node.get("CPU", 0.0) // cores for node in nodes)))
        return RayTransport(most=most, cpus=cores, gpus=0)
