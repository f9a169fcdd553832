"""Which of the executors makes the plans of a target."""

from dataclasses import dataclass, field

from stoker_builder.request import WAIT_S, BuildService
from stoker_builder.tensorrt.targets import PlanTarget, check_compilable
from stoker_builder.workers.client import ServiceClient, read_token
from stoker_builder.workers.executor import BuildExecutor, InProcess, Remote
from stoker_contract.target import Runtime


@dataclass(frozen=True, slots=True)
class Executors:
    """The executors of a build; without a remote one, boards can not be built for."""

    local: BuildExecutor = field(default_factory=InProcess)
    remote: BuildExecutor | None = None
    wait_s: float = WAIT_S

    def is_remote(self, target: PlanTarget) -> bool:
        """Whether its plans are made somewhere else: TensorRT-RTX compiles anywhere."""
        return self.remote is not None and target.runtime is not Runtime.TENSORRT_RTX

    def of(self, target: PlanTarget) -> BuildExecutor:
        """Who makes the plans of a target."""
        remote = self.remote if self.is_remote(target) else None
        return remote or self.local


def check_targets(targets: tuple[PlanTarget, ...], service: BuildService | None) -> None:
    """Refuse targets that nobody can make plans for, before anything slow begins.

    Raises:
        BuildError: ``NO_COMPILER``.
    """
    for target in targets if service is None else ():
        check_compilable(target)


def open_executors(service: BuildService | None) -> Executors:
    """The executors, with a service that was asked once whether it is there.

    Raises:
        BuildError: ``BUILD_SERVICE``.
    """
    if service is None:
        return Executors()
    client = ServiceClient(service.url, read_token(service.token_file), service.ca)
    client.workers()
    return Executors(remote=Remote(client), wait_s=service.wait_s)
