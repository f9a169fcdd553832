"""Why a build stopped: a code, what was found, and what to do about it."""

from stoker_contract.enums import StrEnum


class BuildCode(StrEnum):
    """What stopped a build. Values go into reports and scripts: never rename one."""

    MODEL_MISSING = "MODEL_MISSING"
    MODEL_FORMAT = "MODEL_FORMAT"
    MODEL_TOO_LARGE = "MODEL_TOO_LARGE"
    UNSAFE_FORMAT = "UNSAFE_FORMAT"
    ISOLATION = "ISOLATION"
    EXHAUSTED = "EXHAUSTED"
    REFERENCE_MISSING = "REFERENCE_MISSING"
    REFERENCE_DIFFERS = "REFERENCE_DIFFERS"
    EXTERNAL_DATA = "EXTERNAL_DATA"
    UNSUPPORTED_OP = "UNSUPPORTED_OP"
    FACTORY = "FACTORY"
    WEIGHTS = "WEIGHTS"
    EXPORT = "EXPORT"
    EXPORT_DIFFERS = "EXPORT_DIFFERS"
    DATA_ENTRY = "DATA_ENTRY"
    DATA_EMPTY = "DATA_EMPTY"
    DATA_MISMATCH = "DATA_MISMATCH"
    LABEL_RANGE = "LABEL_RANGE"
    METRIC = "METRIC"
    CALIBRATION_OVERLAP = "CALIBRATION_OVERLAP"
    NOT_FINITE = "NOT_FINITE"
    UNKNOWN_TARGET = "UNKNOWN_TARGET"
    TARGET_FILE = "TARGET_FILE"
    BAD_REQUEST = "BAD_REQUEST"
    QUANTISE = "QUANTISE"
    TENSORRT_GRAPH = "TENSORRT_GRAPH"
    COMPILE = "COMPILE"
    NO_COMPILER = "NO_COMPILER"
    MEASURE = "MEASURE"
    EMULATOR = "EMULATOR"
    REPORT = "REPORT"
    OUTPUT_EXISTS = "OUTPUT_EXISTS"
    OUTPUT_WRITE = "OUTPUT_WRITE"
    BUILD_SERVICE = "BUILD_SERVICE"
    BLOB_DAMAGED = "BLOB_DAMAGED"
    NO_WORKER = "NO_WORKER"
    JOB_POISONED = "JOB_POISONED"
    JOB_STATE = "JOB_STATE"


class BuildError(Exception):
    """A build could not go on, for a reason that whoever started it can act on.

    Attributes:
        code: what kind of reason.
        detail: what was found, and where.
        hint: what to do next.
        page: where the code is explained.
    """

    page = "docs/build-codes.md"

    def __init__(self, code: BuildCode, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
