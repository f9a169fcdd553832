"""Keeping a slot served: start, restart with backoff, and fall back along the slot file.

The server never judges a model; it falls back only when an engine can not be (re)started.
"""

import asyncio
import random
from pathlib import Path

import structlog

from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_server import slotfiles
from stoker_server.engine import Engine
from stoker_server.errors import ServeError
from stoker_server.launch import Launch
from stoker_server.settings import Settings
from stoker_server.slot import Slot

log = structlog.get_logger()


class Recovery:
    """Keeps one slot served for as long as it runs."""

    def __init__(self, slot: Slot, settings: Settings, rng: random.Random) -> None:
        self._slot = slot
        self._settings = settings
        self._rng = rng

    @property
    def _folder(self) -> Path:
        return self._settings.state_dir / "slots"

    async def run(self) -> None:
        """Start what the slot file names, then wait for engines that end. Runs until cancelled."""
        if self._slot.active is None:
            await self._boot()
        while True:
            self._slot.recovering = False
            await self._slot.down.wait()
            self._slot.recovering = True
            self._slot.down.clear()
            failed = self._slot.active
            if failed is not None and not failed.alive and not failed.closed:
                await self._recover(failed)

    async def _boot(self) -> None:
        damage = None
        try:
            slotfiles.read_slot(self._folder, self._slot.name)
        except ServeError as error:
            damage = error
            log.warning(
                "slot.damaged", slot=self._slot.name, code=str(error.code), why=error.detail
            )
        await self._serve_first(slotfiles.chain(self._folder, self._slot.name), damage)

    async def _recover(self, failed: Engine) -> None:
        error = await self._restart(failed)
        if error is None:
            return
        log.warning("engine.given_up", slot=self._slot.name, release=failed.spec.release)
        warm, self._slot.previous = self._slot.previous, None
        if warm is not None and warm.alive:
            self._slot.trouble = error
            self._slot.route(warm)
            await failed.close()
            return
        await failed.close()
        chain = slotfiles.chain(self._folder, self._slot.name)
        others = [spec for spec in chain if spec.digest != failed.spec.digest]
        # The one that failed comes last: when nothing else starts, it is still worth trying.
        await self._serve_first((*others, failed.spec), error)

    async def _restart(self, engine: Engine) -> ServeError | None:
        """Start the same artifact again. None when the slot is served, else why it is not."""
        last = ServeError(ReasonCode.ENGINE_CRASH_LOOP, "the engine crashed too often")
        for attempt in range(self._settings.restart_attempts):
            crashes = engine.recent_crashes
            if crashes > self._settings.max_crashes:
                detail = f"{crashes} crashes within {self._settings.crash_window_s:g} s"
                return ServeError(ReasonCode.ENGINE_CRASH_LOOP, detail)
            await asyncio.sleep(self._delay_s(attempt + crashes - 1))
            if self._slot.active is not engine or engine.closed:
                return None
            try:
                await engine.start(Launch(self._settings.load_timeout_s))
            except ServeError as error:
                last = error
                continue
            engine.restarts += 1
            engine.stats.restarts += 1
            self._slot.came_up()
            log.info("engine.restarted", slot=self._slot.name, release=engine.spec.release)
            return None
        return last if self._slot.active is engine else None

    async def _serve_first(self, chain: tuple[EngineSpec, ...], trouble: ServeError | None) -> None:
        """Serve the first of a chain that starts; try again and again while none does."""
        attempt = 0
        while chain:
            for spec in chain:
                engine = self._slot.new_engine(spec)
                try:
                    await engine.start(Launch(self._settings.load_timeout_s))
                except ServeError as error:
                    log.warning(
                        "engine.not_started",
                        slot=self._slot.name,
                        release=spec.release,
                        code=str(error.code),
                        detail=error.detail,
                    )
                    if self._slot.ready:  # a swap was faster, and is what should serve
                        return
                    trouble = trouble or error
                    self._slot.trouble = trouble
                    continue
                if self._slot.ready:  # a swap was faster
                    await engine.close()
                    return
                self._slot.trouble = trouble
                self._slot.route(engine)
                log.info("slot.serving", slot=self._slot.name, release=spec.release)
                return
            attempt += 1
            await asyncio.sleep(self._delay_s(attempt + 3))
            if self._slot.ready:
                return
        if not self._slot.ready:
            self._slot.trouble = trouble

    def _delay_s(self, exponent: int) -> float:
        """Nothing before the first try, then full jitter under a doubling bound."""
        if exponent <= 0:
            return 0.0
        bound = self._settings.restart_base_s * 2.0 ** min(exponent, 30)
        return self._rng.uniform(0, min(self._settings.restart_cap_s, bound))
