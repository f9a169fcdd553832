"""A plan once more, for hardware whose software went on."""

from stoker_builder.tensorrt.settings import CompileSettings, ShapeRange
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.rebuilding import again_for
from stoker_contract.target import Runtime
from support.build_jobs import job

AFTER = "orin-nano-8gb-jp72"


def test_a_plan_is_built_again_for_the_shapes_that_it_was_for() -> None:
    """The range is the model's; the rest of the settings is the new target's."""
    shapes = {"x": ShapeRange(min=(1, 3), opt=(2, 3), max=(4, 3))}
    before = job(settings=CompileSettings(runtime=Runtime.TENSORRT, profile=shapes))
    target = plan_targets()[AFTER]

    again = again_for(target, before)

    assert again.settings == target.settings.model_copy(update={"profile": shapes})
    assert (again.hardware_class, again.target, again.onnx) == (AFTER, target.target, before.onnx)
