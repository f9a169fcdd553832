"""From finished bytes to a blob in the store: hash, static scan, publish."""

from stoker_agent.core.record import SlotPlan
from stoker_agent.errors import ArtifactError
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.onnx_policy import scan_onnx
from stoker_contract.target import ArtifactKind


def verify_and_publish(plan: SlotPlan, store: BlobStore) -> None:
    """Publish the files of a plan, if they are what was signed and safe to look at.

    Blocks: run it in a thread. Repeating it does nothing new.

    Raises:
        ArtifactError: ``DIGEST_MISMATCH`` or ``UNSAFE_MODEL``.
    """
    store.publish(plan.golden_file.digest, plan.golden_file.length)
    path = store.publish(plan.artifact.digest, plan.artifact.length)
    if plan.spec.kind is not ArtifactKind.ONNX:
        return
    try:
        scan_onnx(path.read_bytes(), plan.spec.limits)
    except ContractError as error:
        raise ArtifactError(ReasonCode.UNSAFE_MODEL, error.detail) from None
