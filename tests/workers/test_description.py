"""What a worker says of itself, and what it may build by that."""

from pathlib import Path

import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.classes import class_of, classes_of, why_not_here
from stoker_builder.workers.describe import describe_worker, detect_software
from stoker_builder.workers.documents import Software
from stoker_contract.target import Arch
from support.nvidia_board import orin_nano

NANO = Software(arch=Arch.AARCH64, module="orin-nano-8gb", l4t="36.4.3", tensorrt="10.3.0.30")


def test_a_board_describes_itself(tmp_path: Path) -> None:
    """Module, L4T, TensorRT, CUDA and power mode come from the system's own files."""
    worker = describe_worker("nano-1", ["orin-nano-8gb-jp62"], orin_nano(tmp_path))

    software = worker.software
    assert (software.module, software.gpu_sm, software.l4t) == ("orin-nano-8gb", "87", "36.4.3")
    assert (software.cuda, software.power_mode) == ("12.6.68", "25W")
    assert worker.memory_bytes == 7620000 * 1024
    assert "asimddp" in worker.isa
    assert worker.name == "nano-1"


def test_what_is_absent_is_absent(tmp_path: Path) -> None:
    """A machine without a board has no module, and makes none up."""
    software = detect_software(tmp_path)
    assert (software.module, software.gpu_sm, software.l4t) == (None, None, None)
    assert (software.cuda, software.power_mode) == (None, None)


def test_a_board_builds_for_its_own_module_and_jetpack() -> None:
    """TensorRT compiles for the GPU and the version that it has, so its class follows."""
    assert classes_of(NANO, plan_targets()) == ("orin-nano-8gb-jp62",)
    upgraded = NANO.model_copy(update={"l4t": "39.2.0", "tensorrt": "10.16.2.1"})
    assert classes_of(upgraded, plan_targets()) == ("orin-nano-8gb-jp72",)
    unknown = NANO.model_copy(update={"tensorrt": "9.0.0"})
    assert classes_of(unknown, plan_targets()) == ()


def test_any_machine_with_tensorrt_rtx_builds_for_all_its_gpus() -> None:
    """It compiles without the GPU."""
    software = Software(arch=Arch.X86_64, tensorrt_rtx="1.7.1")
    assert set(classes_of(software, plan_targets())) == {
        name for name in plan_targets() if name.startswith("rtx-")
    }


def test_the_accelerator_of_a_board_is_no_class_of_its_own() -> None:
    """The same worker makes both plans."""
    assert class_of("orin-nx-16gb-jp62-dla") == "orin-nx-16gb-jp62"
    assert class_of("rtx-sm89") == "rtx-sm89"


def test_why_a_board_does_not_fit_is_said() -> None:
    """With what it has and what is needed."""
    target = plan_targets()["orin-nano-8gb-jp72"]
    said = why_not_here(target.target, target.runtime, NANO)
    assert said == "orin-nano-8gb-jp72 needs tensorrt 10.16.2, this worker has 10.3.0.30"


def test_a_class_that_there_is_not_is_refused() -> None:
    """Before it waits for ever for jobs that nobody sends."""
    with pytest.raises(BuildError) as error:
        describe_worker("x", ["orin-nono"])
    assert error.value.code is BuildCode.UNKNOWN_TARGET
    assert "stoker target list" in error.value.hint


def test_a_name_of_any_host_is_a_name() -> None:
    """It becomes part of what the broker and the store keep."""
    classes = ["rtx-sm89"]
    assert describe_worker("lab 3/desk_2", classes).name == "lab-3-desk_2"
    assert describe_worker("---", classes).name == "worker"
    one, other = (describe_worker("x", classes) for _ in range(2))
    assert one.session != other.session
