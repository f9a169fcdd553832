"""Publishing: what a TUF client sees is exactly what was built, or what was there before."""

import errno
import json
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import Manifest
from stoker_trust import durable
from stoker_trust.catalogue import Catalogue
from stoker_trust.errors import TrustError
from stoker_trust.image_repository import ImageRepository
from stoker_trust.initialise import init_dev
from stoker_trust.keys import Keyring, create_dev_keyring, open_keyring
from support.release_folders import make_release


def client(folder: Path, keyring: Keyring, cache: Path) -> Catalogue:
    return Catalogue(str(folder), keyring.anchor("image-root").read_bytes(), cache)


def tuf_client(folder: Path, keyring: Keyring, cache: Path) -> Updater:
    cache.mkdir(exist_ok=True)
    return Updater(
        str(cache),
        f"{folder.as_uri()}/metadata/",
        target_dir=str(cache),
        target_base_url=f"{folder.as_uri()}/targets/",
        fetcher=client(folder, keyring, cache)._fetcher,  # noqa: SLF001  the one for folders
        bootstrap=keyring.anchor("image-root").read_bytes(),
    )


def test_a_tuf_client_gets_exactly_the_bytes_that_were_built(
    tmp_path: Path, folder: Path, repository: ImageRepository, keyring: Keyring, now: datetime
) -> None:
    """Every file of a published release arrives as it was, through the whole TUF chain."""
    manifest = make_release(tmp_path / "release")

    repository.publish(tmp_path / "release", now)

    updater = tuf_client(folder, keyring, tmp_path / "cache")
    for artifact in manifest.artifacts:
        for path in (artifact.path, artifact.golden.path):
            info = updater.get_targetinfo(path)
            assert info is not None
            received = Path(updater.download_target(info)).read_bytes()
            assert received == (tmp_path / "release" / Path(path).name).read_bytes()


def test_throw_away_keys_stamp_the_manifest(
    tmp_path: Path, folder: Path, repository: ImageRepository, keyring: Keyring, now: datetime
) -> None:
    """What dev keys publish says dev, whatever the builder wrote, and keeps unknown fields."""
    make_release(tmp_path / "release")
    path = tmp_path / "release" / "manifest.json"
    written = {**json.loads(path.read_bytes()), "from_the_future": 1}
    path.write_text(json.dumps(written), encoding="utf-8")

    repository.publish(tmp_path / "release", now)

    release = client(folder, keyring, tmp_path / "cache").release("digits/1.0.0")
    assert release.manifest.dev
    published = next((folder / "targets/digits/1.0.0").glob("*.manifest.json"))
    assert json.loads(published.read_bytes())["from_the_future"] == 1


def test_publishing_the_same_release_again_changes_nothing(
    tmp_path: Path, folder: Path, repository: ImageRepository, now: datetime
) -> None:
    """A repeated publish is a success that leaves every byte as it is."""
    make_release(tmp_path / "release")
    first = repository.publish(tmp_path / "release", now)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    again = repository.publish(tmp_path / "release", now + timedelta(minutes=1))

    assert first.changed
    assert not again.changed
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_version_never_changes_its_bytes(
    tmp_path: Path, repository: ImageRepository, now: datetime
) -> None:
    """The same version with other bytes is refused."""
    make_release(tmp_path / "one")
    make_release(tmp_path / "two", counter=2, salt="other")
    repository.publish(tmp_path / "one", now)

    with pytest.raises(TrustError) as refused:
        repository.publish(tmp_path / "two", now)

    assert refused.value.code is ReasonCode.EQUIVOCATION


def test_the_counter_only_rises(tmp_path: Path, repository: ImageRepository, now: datetime) -> None:
    """A new version whose counter is not above the last one is refused."""
    make_release(tmp_path / "one", version="2.0.0", counter=5)
    make_release(tmp_path / "two", version="2.0.1", counter=5)
    repository.publish(tmp_path / "one", now)

    with pytest.raises(TrustError) as refused:
        repository.publish(tmp_path / "two", now)

    assert refused.value.code is ReasonCode.BELOW_FLOOR
    assert "--counter 6" in refused.value.hint


def test_a_file_that_is_not_what_the_manifest_says_is_refused(
    tmp_path: Path, folder: Path, repository: ImageRepository, now: datetime
) -> None:
    """One flipped byte in an artifact stops the publish before anything is written."""
    manifest = make_release(tmp_path / "release")
    path = tmp_path / "release" / Path(manifest.artifacts[0].path).name
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    with pytest.raises(TrustError) as refused:
        repository.publish(tmp_path / "release", now)

    assert refused.value.code is ReasonCode.DIGEST_MISMATCH
    assert not (folder / "targets").exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "other"}, ReasonCode.MALFORMED),
        ({"version": "../1"}, ReasonCode.MALFORMED),
        ({"counter": 0}, ReasonCode.MALFORMED),
        ({"artifacts": []}, ReasonCode.MALFORMED),
        ({"schema_version": 2}, ReasonCode.UNSUPPORTED),
    ],
)
def test_a_manifest_that_is_none_is_refused(
    tmp_path: Path,
    repository: ImageRepository,
    now: datetime,
    change: dict[str, object],
    code: ReasonCode,
) -> None:
    """A manifest that names files of another model, or breaks the contract, is not signed."""
    manifest = make_release(tmp_path / "release")
    path = tmp_path / "release" / "manifest.json"
    path.write_text(json.dumps({**manifest.to_object(), **change}), encoding="utf-8")

    with pytest.raises(TrustError) as refused:
        repository.publish(tmp_path / "release", now)

    assert refused.value.code is code


@pytest.mark.parametrize("survives", range(9))
def test_half_a_publish_is_invisible_and_can_be_repeated(  # noqa: PLR0913, PLR0917  fixtures
    tmp_path: Path,
    folder: Path,
    repository: ImageRepository,
    keyring: Keyring,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    survives: int,
) -> None:
    """Whichever write the disk fails at, readers see the old release, and a retry succeeds."""
    make_release(tmp_path / "one")
    make_release(tmp_path / "two", version="2.0.0", counter=2)
    repository.publish(tmp_path / "one", now)
    really_write, writes = durable._write_chunks, 0  # noqa: SLF001  the one place bytes go through

    def full_disk(path: Path, chunks: object, mode: int) -> None:
        nonlocal writes
        writes += 1
        if writes > survives:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        really_write(path, chunks, mode)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write_chunks", full_disk)
        if survives < 8:  # 4 files, manifest, model role, snapshot, timestamp
            with pytest.raises(OSError, match="No space left"):
                repository.publish(tmp_path / "two", now)
        else:
            repository.publish(tmp_path / "two", now)

    reader = client(folder, keyring, tmp_path / "cache")
    assert reader.release("digits/1.0.0").manifest.counter == 1
    if survives < 8:
        with pytest.raises(TrustError, match="no release"):
            reader.release("digits/2.0.0")
    repository.publish(tmp_path / "two", now)
    assert reader.release("digits/2.0.0").manifest.counter == 2


def test_models_are_delegated_one_by_one(
    tmp_path: Path, folder: Path, repository: ImageRepository, keyring: Keyring, now: datetime
) -> None:
    """Each model has a role of its own that can name nothing outside of its folder."""
    make_release(tmp_path / "one")
    make_release(tmp_path / "two", model="photos")
    repository.publish(tmp_path / "one", now)
    repository.publish(tmp_path / "two", now)

    updater = tuf_client(folder, keyring, tmp_path / "cache")
    updater.refresh()

    targets = updater._trusted_set.targets  # noqa: SLF001  what the client trusts now
    assert targets.delegations is not None
    roles = targets.delegations.roles or {}
    assert {name: role.paths for name, role in roles.items()} == {
        "digits": ["digits/*/*"],
        "photos": ["photos/*/*"],
    }
    assert [release.release for release in repository.releases()] == [
        "digits/1.0.0",
        "photos/1.0.0",
    ]


def test_somebody_elses_metadata_is_not_signed_on(
    tmp_path: Path, folder: Path, repository: ImageRepository, now: datetime
) -> None:
    """When the folder was tampered with, publish refuses instead of signing what it finds."""
    make_release(tmp_path / "one")
    make_release(tmp_path / "two", version="2.0.0", counter=2)
    repository.publish(tmp_path / "one", now)
    path = folder / "metadata" / "1.digits.json"
    path.write_bytes(path.read_bytes().replace(b"x86-64-v3", b"x86-64-v4"))

    with pytest.raises(TrustError) as refused:
        repository.publish(tmp_path / "two", now)

    assert refused.value.code is ReasonCode.SIGNATURE


def test_refresh_renews_what_expires(
    tmp_path: Path, folder: Path, repository: ImageRepository, keyring: Keyring, now: datetime
) -> None:
    """A refresh moves the expiry and changes no release."""
    make_release(tmp_path / "release")
    repository.publish(tmp_path / "release", now)
    before = repository.timestamp_expires

    repository.refresh(now + timedelta(days=3))

    assert repository.timestamp_expires == before + timedelta(days=3)
    assert client(folder, keyring, tmp_path / "cache").release("digits/1.0.0").file.length > 0


def test_an_expired_repository_is_refused_by_readers(
    tmp_path: Path, folder: Path, repository: ImageRepository, keyring: Keyring, now: datetime
) -> None:
    """A repository whose timestamp nobody renewed is not believed."""
    make_release(tmp_path / "release")
    repository.publish(tmp_path / "release", now - timedelta(days=60))

    with pytest.raises(TrustError) as refused:
        client(folder, keyring, tmp_path / "cache").release("digits/1.0.0")

    assert refused.value.code is ReasonCode.SIGNATURE
    assert "expired" in refused.value.detail


def test_keys_are_secret_and_never_overwritten(tmp_path: Path, now: datetime) -> None:
    """Keys are readable by their owner only, and a second init keeps them."""
    keyring, new = init_dev(tmp_path / "keys", tmp_path / "repository", now)
    pems = sorted((tmp_path / "keys").glob("*.pem"))
    before = [pem.read_bytes() for pem in pems]

    _, again = init_dev(tmp_path / "keys", tmp_path / "repository", now)

    assert (new, again) == (True, False)
    assert keyring.dev
    assert len(pems) == 7
    assert all(stat.S_IMODE(pem.stat().st_mode) == 0o600 for pem in pems)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert [pem.read_bytes() for pem in pems] == before
    with pytest.raises(TrustError, match="never overwritten"):
        create_dev_keyring(tmp_path / "keys")


def test_a_folder_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    """Missing keys are an error with the command that makes some."""
    with pytest.raises(TrustError) as refused:
        open_keyring(tmp_path)

    assert "stoker key init" in refused.value.hint


def test_the_published_manifest_is_a_contract_manifest(
    tmp_path: Path, folder: Path, repository: ImageRepository, now: datetime
) -> None:
    """What lies in the repository parses as the contract says, within a message's size."""
    built = make_release(tmp_path / "release")
    repository.publish(tmp_path / "release", now)

    published = next((folder / "targets/digits/1.0.0").glob("*.manifest.json"))

    assert Manifest.parse(published.read_bytes()) == built.model_copy(update={"dev": True})
