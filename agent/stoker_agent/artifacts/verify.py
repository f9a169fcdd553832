"""From finished bytes to a blob in the store: hash, static scan, publish."""

from stoker_agent.core.record import SlotPlan
from stoker_agent.errors import ArtifactError
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_contract.errors import ContractError
from stoker_contract.onnx_policy import scan_onnx
from stoker_contract.plan_header import HEADER_BYTES, read_plan_header
from stoker_contract.target import ArtifactKind


def verify_and_publish(plan: SlotPlan, store: BlobStore) -> None:
    """Publish the files of a plan, if they are what was signed and safe to look at.

    Blocks: run it in a thread. Repeating it does nothing new.

    Raises:
        ArtifactError: ``DIGEST_MISMATCH`` or ``UNSAFE_MODEL``.
    """
    store.publish(plan.golden_file.digest, plan.golden_file.length)
    _publish(plan.spec, store)
    if plan.fallback is not None:
        _publish(plan.fallback.spec, store)


def _publish(spec: EngineSpec, store: BlobStore) -> None:
    path = store.publish(spec.digest, spec.length)
    try:
        if spec.kind is ArtifactKind.ONNX:
            scan_onnx(path.read_bytes(), spec.limits)
        elif spec.kind is ArtifactKind.TENSORRT_PLAN:
            with path.open("rb") as file:
                read_plan_header(file.read(HEADER_BYTES), spec.length)
    except ContractError as error:
        raise ArtifactError(ReasonCode.UNSAFE_MODEL, error.detail) from None
