"""``scripts/e2e``: what is run, in which order, and what is said about it."""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e import cgroups, matrix
from e2e.cache import CACHE
from e2e.images import NoMirrorError, image
from e2e.playbooks import Playbooks
from e2e.proof import Proof
from e2e.releases import built
from e2e.sandbox import run_in_sandbox
from e2e.site import Site
from e2e.stories import ALWAYS, STORIES, Story
from e2e.wheelhouses import Wheelhouses, next_version, this_version, wheelhouses
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.promises import Scorecard

RUNS: Final = CACHE / "runs"
EVIDENCE: Final = CACHE / "evidence"
RUNNING: Final = RUNS / "running"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What needs the internet or much time, made before the network is left."""

    image: Path
    release: Path
    wheels: Wheelhouses
    next_wheels: Wheelhouses


def prepare() -> Prepared:
    """Make or find it; two at a time, for there is both waiting and computing in it."""
    with ThreadPoolExecutor(2) as pool:
        system, release = pool.submit(image), pool.submit(built)
        wheels = pool.submit(wheelhouses, this_version())
        later = pool.submit(wheelhouses, next_version())
        return Prepared(system.result(), release.result(), wheels.result(), later.result())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Returns 0 only if everything that was promised held."""
    asked = _parse(arguments)
    narrator = Narrator()
    if asked.list:
        for story in STORIES:
            narrator.fact(f"{story.name:<16} {'' if story.by_default else '(--all) '}{story.title}")
        return 0
    if asked.enter:
        return _enter(asked.enter)
    if asked.matrix:
        return matrix.run(narrator)
    narrator.title("stoker, end to end", "Booted systems with disks of their own, on one bridge.")
    began_s = time.monotonic()
    with narrator.waiting("System image, wheels and a release, unless they are in the cache"):
        try:
            prepared = prepare()
        except NoMirrorError as error:
            narrator.fact(f"SKIPPED: scripts/e2e proves nothing here: {error}")
            return 0
    narrator.fact(f"Prepared in {time.monotonic() - began_s:.0f} s.")
    RUNS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=RUNS))
    try:
        return run_in_sandbox(
            lambda: _tell(asked, prepared, folder, narrator, began_s),
            lambda pid: _announce(pid, folder),
        )
    finally:
        cgroups.remove(folder.name)
        if RUNNING.exists() and RUNNING.read_text().endswith(f" {folder}"):
            RUNNING.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _announce(init: int, folder: Path) -> None:
    RUNNING.write_text(f"{init} {folder}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/e2e", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also the stories that take long")
    parser.add_argument(
        "--only", action="append", metavar="STORY", choices=[story.name for story in STORIES],
        help="this story and what it builds on; may be repeated",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the stories")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--enter", metavar="NODE", help="log in to a node of the running site")
    parser.add_argument("--matrix", action="store_true", help="the units on systemd 247 to 257")
    parser.add_argument("--seed", type=int, default=None, help="of random moments; is printed")
    parser.add_argument("--report", type=Path, help="write promises and figures as JSON")
    return parser.parse_args(arguments)


def _tell(
    asked: argparse.Namespace,
    prepared: Prepared,
    folder: Path,
    narrator: Narrator,
    began_s: float,
) -> int:
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**32)
    narrator.fact(f"Random moments come from --seed {seed}.")
    site = Site(folder, prepared.image, prepared.release)
    scorecard = Scorecard()
    proof = Proof(
        site=site,
        playbooks=Playbooks(site, folder / "control"),
        wheels=prepared.wheels,
        next_wheels=prepared.next_wheels,
        narrator=narrator,
        scorecard=scorecard,
        folder=folder,
        rng=random.Random(seed),  # noqa: S311  moments, not secrets
    )
    for story in _chosen(asked):
        if not _tell_one(proof, story) and story in ALWAYS:
            break  # the others would only fail for the same reason
    seconds = time.monotonic() - began_s
    narrator.summary(scorecard, seconds)
    if asked.report:
        report = {"seconds": round(seconds, 1), "promises": scorecard.to_object()}
        asked.report.write_text(json.dumps(report, indent=2) + "\n")
    if not scorecard.all_held:
        shutil.rmtree(EVIDENCE, ignore_errors=True)
        site.keep_evidence(EVIDENCE)
        narrator.fact(f"What the nodes logged is in {EVIDENCE}.")
    if asked.keep:
        _stay(narrator, site)
    return 0 if scorecard.all_held else 1


def _chosen(asked: argparse.Namespace) -> list[Story]:
    if asked.only:
        return [story for story in STORIES if story in ALWAYS or story.name in asked.only]
    return [story for story in STORIES if story.by_default or asked.all]


def _tell_one(proof: Proof, story: Story) -> bool:
    proof.narrator.step(story.title)
    began_s, before = time.monotonic(), len(proof.scorecard.promises)
    try:
        story.tell(proof)
    except Exception as error:  # noqa: BLE001  whatever it is, the others are still to be told
        proof.promise(f"{story.name} comes to its end", str(error) or repr(error), held=False)
        proof.fact(traceback.format_exc(limit=-3))
        proof.recover()
    proof.fact(f"{time.monotonic() - began_s:.0f} s")
    return all(promise.held for promise in proof.scorecard.promises[before:])


def _stay(narrator: Narrator, site: Site) -> None:
    site.write_ssh_config()
    narrator.step("It goes on running until Ctrl-C. In another terminal:")
    for node in site.nodes:
        narrator.fact(f"scripts/e2e --enter {node.name}")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        narrator.fact("Switching everything off.")


def _enter(name: str) -> int:
    if not RUNNING.exists():
        sys.exit("Nothing is running; start it with scripts/e2e --keep")
    init, folder = RUNNING.read_text().split(maxsplit=1)
    inside = ("nsenter", "--target", init, "--mount", "--net", "--pid", "--")
    ssh = ("ssh", "-F", f"{folder}/ssh_config", name)
    return subprocess.run([*inside, *ssh], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
