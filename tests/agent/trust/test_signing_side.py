"""The signing side and the device agree, over the web server that comes with stoker."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from stoker_agent.clock import SystemClock
from stoker_agent.core.trust import Addressee
from stoker_agent.errors import TrustError
from stoker_agent.state.journal import Journal
from stoker_agent.trust.verifier import TrustSettings, Verifier
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import Choice, Desired, FileRef, SlotDesired
from stoker_contract.manifest import Artifact, Golden
from stoker_trust.director import Director
from stoker_trust.image_repository import ImageRepository
from stoker_trust.initialise import init_dev
from stoker_trust.serve import make_server
from support.release_folders import make_release


def ref(file: Artifact | Golden) -> FileRef:
    """A file of a manifest as a desired state names it."""
    return FileRef(path=file.path, digest=file.digest, length=file.length)


@pytest.mark.parametrize("allow_dev", [True, False])
def test_what_our_signing_side_signs_our_device_takes(tmp_path: Path, allow_dev: bool) -> None:  # noqa: FBT001 - a parameter
    """A published release that a director asks for is verified with floors in a real journal."""
    now = datetime.now(UTC)
    keyring, _ = init_dev(tmp_path / "keys", tmp_path / "repository", now)
    manifest = make_release(tmp_path / "release")
    published = ImageRepository(tmp_path / "repository", keyring).publish(tmp_path / "release", now)
    choices = tuple(Choice(artifact=ref(a), golden=ref(a.golden)) for a in manifest.artifacts)
    slot = SlotDesired(release=published.release, manifest=published.manifest, choices=choices)
    desired = Desired(
        device="edge-1",
        fleet="demo",
        deployment_id=f"rollout-{Random(1).randrange(100)}",  # noqa: S311 - any number
        issued=now.isoformat(),
        slots={"digits": slot},
    )
    payload = Director(keyring).sign(desired, 4, now)
    server = make_server(tmp_path / "repository", "127.0.0.1", 0)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    journal = Journal(tmp_path / "state.db")
    try:
        settings = TrustSettings(
            me=Addressee("edge-1", "demo"),
            url=f"http://127.0.0.1:{server.server_address[1]}",
            image_root=keyring.anchor("image-root"),
            director_root=keyring.anchor("director-root"),
            cache=tmp_path / "tuf",
            allow_dev=allow_dev,
        )
        verifier = Verifier(settings, journal, SystemClock())
        if allow_dev:
            verified = verifier.verify_now(payload)
            assert verified.generation == 4
            assert verified.desired == desired
            assert verified.manifests["digits"].artifacts == manifest.artifacts
            journal.raise_floors(verified.floors)
            assert verifier.verify_now(payload).floors == verified.floors
        else:
            with pytest.raises(TrustError) as refused:
                verifier.verify_now(payload)
            assert refused.value.code is ReasonCode.DEV_RELEASE
            assert refused.value.deployment_id == desired.deployment_id
    finally:
        journal.close()
        server.shutdown()
        server.server_close()
        thread.join()
