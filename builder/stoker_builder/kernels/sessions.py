"""Opening ONNX files with ONNX Runtime, the one way the builder does it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.target import Arch

Level = Literal["all", "extended", "basic", "disabled"]
Tensor = NDArray[np.generic]

_ONLY_ERRORS: Final = 4  # of ONNX Runtime's severities; its warnings are about our own tricks


class Session:
    """A loaded ONNX file."""

    def __init__(  # noqa: PLR0913 - the settings of one session
        self,
        path: Path,
        *,
        threads: int = 1,
        level: Level = "all",
        optimised_path: Path | None = None,
        profile_prefix: Path | None = None,
        arch: Arch | None = None,
    ) -> None:
        """Load ``path``.

        Args:
            path: the ONNX file.
            threads: within one run.
            level: of graph optimisation.
            optimised_path: where to write the graph as the optimiser left it.
            profile_prefix: record what each kernel was given, see :meth:`end_profile`.
            arch: optimise the graph as on that architecture; as on this machine when absent.

        Raises:
            BuildError: ``UNSUPPORTED_OP``, when ONNX Runtime can not run this graph.
        """
        import onnxruntime as ort  # noqa: PLC0415  `stoker build --help` should not pay for it

        levels = ort.GraphOptimizationLevel
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_ERRORS
        # a pool that spins between runs steals the processor from whoever is measured next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.graph_optimization_level = {
            "all": levels.ORT_ENABLE_ALL,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "basic": levels.ORT_ENABLE_BASIC,
            "disabled": levels.ORT_DISABLE_ALL,
        }[level]
        if arch is not None:
            # ARM multiplies signed by signed; for x86 signed activations are shifted first
            signed = "1" if arch is Arch.AARCH64 else "0"
            options.add_session_config_entry("session.qdqisint8allowed", signed)
        if optimised_path is not None:
            options.optimized_model_filepath = str(optimised_path)
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_prefix)
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises a class of its own for each kind
            detail = (
                f"ONNX Runtime {ort.__version__} can not load {path.name}: {_first_line(error)}"
            )
            hint = "export with an opset and operators that ONNX Runtime has on the CPU"
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from error
        # a kept NodeArg would pin the session in memory: copy what is needed
        self.inputs = tuple((a.name, a.type, tuple(a.shape)) for a in self._session.get_inputs())
        self.outputs = tuple((a.name, a.type, tuple(a.shape)) for a in self._session.get_outputs())
        self._output_names = [name for name, _, _ in self.outputs]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answer one sample.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the model can not take it.
        """
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except Exception as error:
            detail = f"the model refuses a sample: {_first_line(error)}"
            hint = (
                "each sample needs the model's input names, types and shapes, batch axis included"
            )
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def end_profile(self) -> Path:
        """Stop recording and return the file that was written."""
        return Path(self._session.end_profiling())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:400] if str(error).strip() else repr(error)
