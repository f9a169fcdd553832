"""What the server needs to run an engine, and the file that says what serves after a boot."""

from typing import Literal

from stoker_contract.document import Document
from stoker_contract.manifest import EngineIO, Footprint, Limits, Precision, SessionOptions
from stoker_contract.names import Count, DeploymentId, PositiveInt, Sha256, ShortText, Slug
from stoker_contract.target import ArtifactKind


class EngineSpec(Document):
    """One artifact on this device's disk, and how it is to be loaded.

    Attributes:
        path: absolute path of the verified blob.
    """

    digest: Sha256
    length: PositiveInt
    path: str
    release: ShortText
    kind: ArtifactKind
    precision: Precision
    io: EngineIO
    session: SessionOptions = SessionOptions()
    limits: Limits = Limits()
    footprint: Footprint = Footprint()


class SlotFile(Document):
    """``slots/<slot>.json``: the only truth of what serves after a boot."""

    schema_version: Literal[1] = 1
    slot: Slug
    current: EngineSpec
    previous: EngineSpec | None = None
    fallback: EngineSpec | None = None
    generation: Count = 0
    deployment_id: DeploymentId | None = None
