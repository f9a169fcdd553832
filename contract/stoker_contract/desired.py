"""Desired state: what a device should run.

It is the ``stoker`` member of the director's signed TUF ``Targets`` metadata; its generation is
that metadata's version.
"""

from typing import Final, Literal

from pydantic import Field
from typing_extensions import Self

from stoker_contract.codes import ReasonCode
from stoker_contract.document import Document
from stoker_contract.errors import ContractError
from stoker_contract.names import (
    Count,
    DeploymentId,
    Milliseconds,
    PositiveInt,
    Ratio,
    Seconds,
    Sha256,
    ShortText,
    Slug,
    TargetPath,
)

MEMBER: Final = "stoker"
"""The name of the member of the signed metadata."""


class FileRef(Document):
    """A file of the image repository, named so that it can not be another one."""

    path: TargetPath
    digest: Sha256
    length: PositiveInt


class Choice(Document):
    """One artifact the device may take, with the golden set that belongs to it."""

    artifact: FileRef
    golden: FileRef


class Gates(Document):
    """What must hold before and after the swap. An absent latency figure is not checked.

    Attributes:
        max_p99_ratio_vs_active: candidate p99 over active p99, interleaved on the device.
        min_samples: latency samples taken of each engine before the swap.
    """

    min_golden_score: Ratio = 1.0
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    max_p99_ratio_vs_active: float | None = Field(default=None, gt=0)
    min_samples: PositiveInt = 300


class Probation(Document):
    """What live traffic must show before the commit.

    Attributes:
        min_samples: with fewer live requests than this the commit says ``confidence: low``.
    """

    duration_s: Seconds = 60.0
    min_samples: PositiveInt = 100
    max_error_rate: Ratio = 0.0
    p99_ms: Milliseconds | None = None
    max_p99_ratio_vs_active: float | None = Field(default=None, gt=0)
    max_engine_restarts: Count = 0


class Swap(Document):
    """How the engines are exchanged."""

    strategy: Literal["auto", "overlap", "bridge", "drain"] = "auto"
    drain_timeout_s: Seconds = 10.0
    shadow_ratio: Ratio = 0.0


class SlotDesired(Document):
    """What one slot should serve: the first choice that this device can run."""

    release: ShortText
    manifest: FileRef
    choices: tuple[Choice, ...] = Field(min_length=1, max_length=8)
    gates: Gates = Gates()
    probation: Probation = Probation()
    swap: Swap = Swap()


class Retry(Document):
    """How often a deployment is tried again by the device itself."""

    max_attempts: PositiveInt = 3


class Policy(Document):
    """When and how fast."""

    max_bytes_per_s: PositiveInt | None = None
    retry: Retry = Retry()
    deadline_s: Seconds = 3600.0
    force: bool = False


class Desired(Document):
    """The desired state of one device: all of its slots."""

    schema_version: Literal[1] = 1
    device: Slug
    fleet: Slug
    deployment_id: DeploymentId
    issued: ShortText
    slots: dict[Slug, SlotDesired] = Field(max_length=16)
    policy: Policy = Policy()

    def to_member(self) -> str:
        """The value of the signed member: a string, not an object.

        TUF signs OLPC canonical JSON, which has no floating-point numbers. As a string the
        document is signed byte for byte.
        """
        return self.encode().decode()

    @classmethod
    def from_member(cls, value: object) -> Self:
        """Read the value of the signed member.

        Raises:
            ContractError: it is not such a document.
        """
        if not isinstance(value, str):
            detail = f"the signed member {MEMBER!r} has to be a string that holds the document"
            raise ContractError(ReasonCode.MALFORMED, detail)
        return cls.parse(value.encode("utf-8", "surrogatepass"))

    def files(self) -> dict[str, FileRef]:
        """Every file the document names, by path.

        Raises:
            ContractError: one path is named with two digests or lengths.
        """
        files: dict[str, FileRef] = {}
        for slot in self.slots.values():
            refs = [slot.manifest]
            for choice in slot.choices:
                refs += (choice.artifact, choice.golden)
            for ref in refs:
                if files.setdefault(ref.path, ref) != ref:
                    detail = f"{ref.path} is named with two digests"
                    raise ContractError(ReasonCode.MALFORMED, detail)
        return files
