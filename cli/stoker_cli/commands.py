"""The commands of ``stoker``, as data: nothing here imports what a command needs."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Command:
    """One word after ``stoker``.

    Attributes:
        module: where its ``app`` (a ``typer.Typer``) is, imported when it is invoked.
        group: it has commands of its own.
        extra: the extra of the distribution that it needs beyond the default installation.
    """

    name: str
    summary: str
    module: str
    group: bool = True
    extra: str | None = None


COMMANDS: Final = (
    Command(
        "build",
        "Make a release from a PyTorch or ONNX model: quantise, gate, measure, select.",
        "stoker_cli.build",
        group=False,
        extra="builder",
    ),
    Command(
        "bench",
        "Measure latency of a file, a release or a server.",
        "stoker_cli.bench",
        group=False,
        extra="builder",
    ),
    Command(
        "inspect",
        "Show what is in a release, a manifest or an ONNX file.",
        "stoker_cli.inspect",
        group=False,
        extra="builder",
    ),
    Command(
        "diff",
        "Show what changed between two releases, or two ONNX files.",
        "stoker_cli.diff",
        group=False,
        extra="builder",
    ),
    Command(
        "report",
        "Show the report of a release again.",
        "stoker_cli.report",
        group=False,
        extra="builder",
    ),
    Command(
        "target",
        "List what a release can be built for, and show one to begin your own with.",
        "stoker_cli.target",
        extra="builder",
    ),
    Command(
        "builds",
        "Have plans built on other machines, and see how it goes.",
        "stoker_cli.builds",
        extra="workers",
    ),
    Command(
        "worker",
        "Build plans for the boards that are like this one.",
        "stoker_cli.worker",
        group=False,
        extra="workers",
    ),
    Command("key", "Make and show the signing keys.", "stoker_cli.key", extra="fleet"),
    Command(
        "pki",
        "Make certificates for devices, broker and controller.",
        "stoker_cli.pki",
        extra="fleet",
    ),
    Command(
        "publish",
        "Sign a release into the image repository.",
        "stoker_cli.publish",
        group=False,
        extra="fleet",
    ),
    Command(
        "repository",
        "Look at an image repository, or serve it.",
        "stoker_cli.repository",
        extra="fleet",
    ),
    Command("rollout", "Roll a release out and watch it.", "stoker_cli.rollout", extra="fleet"),
    Command("device", "Show devices and their latency.", "stoker_cli.device", extra="fleet"),
    Command("fleet", "Run the controller; show the fleet.", "stoker_cli.fleet", extra="fleet"),
    Command("broker", "Run an MQTT broker for development.", "stoker_cli.broker"),
    Command(
        "demo",
        "Show the whole of stoker on this machine, measured.",
        "stoker_cli.demo",
        group=False,
        extra="examples",
    ),
)
