"""``fleet.toml``: what the controller and the commands that ask it need to know."""

import tomllib
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stoker_contract.codes import ReasonCode
from stoker_contract.names import Slug
from stoker_fleet.errors import FleetError
from stoker_fleet.location import ENVIRONMENT

EXAMPLE: Final = """\
fleet = "demo"
database = "fleet.db"
keys = "keys"
repository = "repository"   # a folder, or the URL that devices use

[mqtt]
host = "127.0.0.1"
port = 1883
# protocol = "auto"         # "auto" | "5" | "3.1.1"

# [mqtt.tls]
# ca = "pki/ca.crt"
# certificate = "pki/controller.crt"
# key = "pki/controller.key"
"""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsConfig(_Section):
    """Certificates for mutual TLS."""

    ca: Path
    certificate: Path
    key: Path


class MqttConfig(_Section):
    """The broker. Without ``tls`` it is plain TCP: loopback and development only."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = Field(default=30, ge=5)
    tls: TlsConfig | None = None


class FleetConfig(_Section):
    """One fleet. Relative paths are relative to the file."""

    fleet: Slug
    database: Path
    keys: Path
    repository: str
    cache: Path = Path(".stoker-fleet-cache")
    desired_lifetime_days: int = Field(default=90, ge=1)
    mqtt: MqttConfig = MqttConfig()

    @model_validator(mode="after")
    def _tls_beyond_loopback(self) -> Self:
        loopback = self.mqtt.host in {"127.0.0.1", "::1", "localhost"}
        if self.mqtt.tls is None and not loopback:
            msg = f"[mqtt.tls] is missing: plain TCP is for loopback only, not for {self.mqtt.host}"
            raise ValueError(msg)
        return self


def load_config(path: Path) -> FleetConfig:
    """Read ``fleet.toml``.

    Raises:
        FleetError: ``BAD_REQUEST``, it is missing or wrong; says where.
    """
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
        config = FleetConfig.model_validate(value)
    except FileNotFoundError:
        hint = f"Write one (or name one with --config or {ENVIRONMENT}):\n\n{EXAMPLE}"
        raise FleetError(ReasonCode.BAD_REQUEST, f"there is no {path}", hint=hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FleetError(ReasonCode.BAD_REQUEST, f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FleetError(ReasonCode.BAD_REQUEST, f"{path}: {where}: {first['msg']}") from None
    return _relative_to(path.resolve().parent, config)


def _relative_to(folder: Path, config: FleetConfig) -> FleetConfig:
    remote = config.repository.startswith(("http://", "https://"))
    tls = config.mqtt.tls
    if tls is not None:
        tls = TlsConfig(
            ca=folder / tls.ca, certificate=folder / tls.certificate, key=folder / tls.key
        )
    return config.model_copy(
        update={
            "database": folder / config.database,
            "keys": folder / config.keys,
            "cache": folder / config.cache,
            "repository": config.repository if remote else str(folder / config.repository),
            "mqtt": config.mqtt.model_copy(update={"tls": tls}),
        }
    )
