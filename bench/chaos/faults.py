"""Carries out the schedule."""

import asyncio
import random
import signal
import time
from collections.abc import Mapping, Sequence

from chaos.clients import Site
from chaos.cluster import Cluster
from chaos.instances import Instance
from chaos.schedule import Fault
from chaos.watch import Thrown
from simulator.testing import SimulatorProcess

# Calls that need not be spoiled for the load to go on: the simulator's own.
EVERY_CALL = "/v1/"
# The worker that is killed while the database is away dies in the middle of it.
IN_THE_MIDDLE = 0.5


class Thrower:
    """Throws each fault at its time; those of different tracks may overlap."""

    def __init__(
        self, seed: int, sites: Sequence[Site], cluster: Cluster | None, simulator: SimulatorProcess
    ) -> None:
        self.thrown: list[Thrown] = []
        self._chance = random.Random(seed)
        self._instances: Mapping[str, Instance] = {i.name: i for site in sites for i in site.instances}
        self._beside = {i.name: site.instances for site in sites for i in site.instances}
        self._cluster = cluster
        self._simulator = simulator

    async def run(self, faults: Sequence[Fault], began: float) -> None:
        """Returns when the last is over. `began` is the machine's time that the schedule counts from."""

        async def one(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.time()))
            thrown = Thrown(fault.kind, fault.where, time.time())
            self.thrown.append(thrown)
            thrown.words = await self._throw(fault)
            thrown.ended = time.time()
            print(f"{thrown.began - began:7.1f} s  {fault.kind} ({fault.where}) {thrown.words}", flush=True)

        async def track(name: str) -> None:
            for fault in faults:
                if self._track_of(fault) == name:
                    await one(fault)

        await asyncio.gather(*[track(name) for name in sorted(set(map(self._track_of, faults)))])

    def _track_of(self, fault: Fault) -> str:
        """Faults of one track come one after another, however long each takes on a slow machine."""
        instance = self._instances.get(fault.where)
        return instance.site if instance is not None else fault.where

    async def _throw(self, fault: Fault) -> str:
        if fault.where == "upstream":
            return await self._spoil(fault)
        if fault.kind.startswith("database"):
            return await self._take_database(fault)
        instance = self._instances[fault.where]
        await instance.wait_for_workers()
        match fault.kind:
            case "kill a worker":
                return f"pid {instance.signal_worker(signal.SIGKILL, self._chance.randrange(2))}"
            case "pause a worker":
                return await self._pause(instance, fault.lasts_s)
            case "kill the master":
                instance.signal_master(signal.SIGKILL)
            case "kill the instance":
                instance.kill_all()
            case "SIGTERM the instance":
                return await self._terminate(instance)
            case "clock steps":
                return await self._step_clock(instance, fault)
            case "disk full":
                instance.fill_disk(full=True)
                await asyncio.sleep(fault.lasts_s)
                instance.fill_disk(full=False)
                return f"for {fault.lasts_s} s"
            case _:
                return await self._take_database(fault)
        return ""

    async def _take_database(self, fault: Fault) -> str:
        assert self._cluster is not None
        if fault.kind == "database connections cut":
            return f"{await self._cluster.cut()} of them"
        instance = self._instances.get(fault.where)
        is_crash = fault.kind == "database stopped immediate" or self._chance.random() < 0.5
        mode = "fast" if fault.kind == "database stopped fast" or not is_crash else "immediate"
        if fault.kind.startswith("disk full"):
            for each in self._beside[fault.where]:
                each.fill_disk(full=True)
        await self._cluster.stop(mode)
        await asyncio.sleep(fault.lasts_s * IN_THE_MIDDLE)
        if fault.kind.startswith("kill a worker") and instance is not None:
            instance.signal_worker(signal.SIGKILL, self._chance.randrange(2))
        elif fault.kind.startswith("kill the instance") and instance is not None:
            instance.kill_all()
        await asyncio.sleep(fault.lasts_s * (1 - IN_THE_MIDDLE))
        await self._cluster.start()
        if fault.kind.startswith("disk full"):
            for each in self._beside[fault.where]:
                each.fill_disk(full=False)
        return f"for {fault.lasts_s} s, stopped {mode}"

    async def _spoil(self, fault: Fault) -> str:
        if fault.detail:
            await asyncio.to_thread(self._simulator.fault, fault.detail, times=None, path=EVERY_CALL)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(self._simulator.control, "DELETE", "faults")
        else:
            await asyncio.to_thread(self._simulator.control, "POST", "refuse", {"seconds": fault.lasts_s})
            await asyncio.sleep(fault.lasts_s)
        return f"for {fault.lasts_s} s {fault.detail}"

    async def _pause(self, instance: Instance, seconds: float) -> str:
        """A worker that stands still for longer than its lease, as a machine that is moved may."""
        choice = self._chance.randrange(2)
        pid = instance.signal_worker(signal.SIGSTOP, choice)
        await asyncio.sleep(seconds)
        if pid is not None and pid in instance.workers():
            instance.resume(pid)
        return f"pid {pid} for {seconds} s"

    async def _terminate(self, instance: Instance) -> str:
        began, starts = time.time(), instance.starts
        instance.signal_master(signal.SIGTERM)
        while instance.starts == starts:
            await asyncio.sleep(0.05)
        return f"ended in {time.time() - began:.1f} s"

    async def _step_clock(self, instance: Instance, fault: Fault) -> str:
        instance.set_clock(int(fault.detail))
        await asyncio.sleep(fault.lasts_s)
        instance.set_clock(0)
        return f"{fault.detail} s for {fault.lasts_s} s"
