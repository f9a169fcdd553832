"""``agent.toml``: read once, checked completely, refused with a sentence that helps."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stoker_agent.errors import ConfigError
from stoker_contract.names import ShortText, Slug

MAX_CONFIG_BYTES = 256 * 1024


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        msg = f"write an absolute path, not {str(path)!r}"
        raise ValueError(msg)
    return path


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"write a URL such as https://models.example.com, not {url!r}"
        raise ValueError(msg)
    if parts.query or parts.fragment or parts.username or parts.password:
        msg = "write the URL without a query, a fragment or a password"
        raise ValueError(msg)
    return url.rstrip("/")


def _listen_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address != "none" and not (host and port.isdecimal() and int(port) < 2**16):
        msg = f'write "127.0.0.1:8000" or "none", not {address!r}'
        raise ValueError(msg)
    return address


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]


class Section(BaseModel):
    """A table of the file. A key that is not known is a mistake, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSection(Section):
    """Who this device is. ``id`` is also the MQTT client id and the certificate's name."""

    id: Slug
    fleet: Slug
    labels: dict[Slug, ShortText] = Field(default_factory=dict)


class TlsSection(Section):
    """Files of the mutual TLS connection to the broker."""

    ca: AbsolutePath
    certificate: AbsolutePath
    key: AbsolutePath


class MqttSection(Section):
    """The broker. Without ``tls`` the connection is plain TCP: loopback and development only."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8883, ge=1, le=65535)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = Field(default=30, ge=5, le=3600)
    tls: TlsSection | None = None


class RepositorySection(Section):
    """The image repository: ``<url>/metadata``, ``<url>/targets`` and ``<url>/director``."""

    url: HttpUrl


class TrustSection(Section):
    """The two roots this device was given when it was provisioned."""

    image_root: AbsolutePath = Path("/etc/stoker/trust/image-root.json")
    director_root: AbsolutePath = Path("/etc/stoker/trust/director-root.json")
    allow_dev: bool = False


class PathsSection(Section):
    """Where the device keeps its state, and where its sockets are."""

    state_dir: AbsolutePath = Path("/var/lib/stoker")
    run_dir: AbsolutePath = Path("/run/stoker")


class ServerSection(Section):
    """Only used with ``--with-server``."""

    http: ListenAddress = "127.0.0.1:8000"


class TelemetrySection(Section):
    """How often latency histograms are sent."""

    interval_s: float = Field(default=60.0, ge=1, le=86_400)


class ConnectionSection(Section):
    """How a lost connection is tried again: full jitter, see ``core.backoff``."""

    base_s: float = Field(default=1.0, gt=0, le=60)
    cap_s: float = Field(default=300.0, gt=0, le=3600)
    boot_jitter_s: float = Field(default=30.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _cap_above_base(self) -> Self:
        if self.cap_s < self.base_s:
            msg = f"write a cap_s of at least base_s, {self.base_s}"
            raise ValueError(msg)
        return self


class Config(Section):
    """The whole file."""

    device: DeviceSection
    mqtt: MqttSection = MqttSection()
    repository: RepositorySection
    trust: TrustSection = TrustSection()
    paths: PathsSection = PathsSection()
    server: ServerSection = ServerSection()
    telemetry: TelemetrySection = TelemetrySection()
    connection: ConnectionSection = ConnectionSection()


def load_config(path: Path) -> Config:
    """Read and check ``agent.toml``.

    Raises:
        ConfigError: the file can not be read or used. The text names the file, every field
            that is wrong, and what to write instead.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror}; write the file or name another with --config"
        raise ConfigError(msg) from None
    if len(data) > MAX_CONFIG_BYTES:
        msg = f"{path}: {len(data)} bytes, at most {MAX_CONFIG_BYTES} are read"
        raise ConfigError(msg)
    return parse_config(data, where=str(path))


def parse_config(data: bytes, *, where: str) -> Config:
    """Check the bytes of a configuration file; ``where`` names it in errors.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        msg = f"{where}: not TOML: {error}"
        raise ConfigError(msg) from None
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        lines = [f"{where}: {_explain(tuple(p['loc']), p['type'], p['msg'])}" for p in problems]
        raise ConfigError("\n".join(lines)) from None


def _explain(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    field = ".".join(str(part) for part in loc)
    if kind == "missing":
        return f"{field} is missing; add {_example(loc)}"
    if kind == "extra_forbidden":
        return f"{field} is not a setting; {_did_you_mean(loc)}"
    return f"{field}: {message.removeprefix('Value error, ')}"


def _example(loc: tuple[int | str, ...]) -> str:
    *tables, key = (str(part) for part in loc)
    return f"`{key} = …` to [{'.'.join(tables)}]" if tables else f"a table [{key}]"


def _did_you_mean(loc: tuple[int | str, ...]) -> str:
    *tables, key = (str(part) for part in loc)
    known = sorted(_fields_at(tables))
    near = get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _fields_at(tables: list[str]) -> set[str]:
    section: Any = Config
    for table in tables:
        annotation = section.model_fields[table].annotation
        choices = [annotation, *getattr(annotation, "__args__", ())]
        section = next(c for c in choices if isinstance(c, type) and issubclass(c, Section))
    return set(section.model_fields)
