"""Reason codes and final outcomes. A controller acts on these and never parses text."""

from collections.abc import Mapping
from typing import Final

from stoker_contract.enums import StrEnum


class Outcome(StrEnum):
    """How a deployment ended on one device. Exactly one per accepted generation."""

    SUCCEEDED = "SUCCEEDED"
    NOOP = "NOOP"  # the device already was what the document asks for
    REJECTED = "REJECTED"  # this device can never take it; never retried
    FAILED_NO_CHANGE = "FAILED_NO_CHANGE"  # the old engine never stopped serving
    ROLLED_BACK = "ROLLED_BACK"  # the new engine had served
    ROLLBACK_FAILED = "ROLLBACK_FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"
    SUPERSEDED = "SUPERSEDED"


class ReasonClass(StrEnum):
    """What a controller may conclude from a reason code."""

    PERMANENT = "permanent"  # the same document will never work on this device
    TRANSIENT = "transient"  # trying again may work; does not count as a failure of the release
    POLICY = "policy"  # a person or a policy said no


class ReasonCode(StrEnum):
    """Why something was refused, failed or rolled back. Values are persisted: never rename one."""

    # REJECTED: the document or the release can not be taken by this device.
    MALFORMED = "MALFORMED"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    SIGNATURE = "SIGNATURE"
    ROOT_CHAIN = "ROOT_CHAIN"
    EXPIRED = "EXPIRED"
    STALE_GENERATION = "STALE_GENERATION"
    EQUIVOCATION = "EQUIVOCATION"
    WRONG_DEVICE = "WRONG_DEVICE"
    MIX_AND_MATCH = "MIX_AND_MATCH"
    BELOW_FLOOR = "BELOW_FLOOR"
    INCOMPATIBLE_TARGET = "INCOMPATIBLE_TARGET"
    BAD_DIGEST = "BAD_DIGEST"
    DEV_RELEASE = "DEV_RELEASE"
    HELD = "HELD"
    # FAILED_NO_CHANGE: tried, and the old engine never stopped.
    NETWORK = "NETWORK"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    DISK_SPACE = "DISK_SPACE"
    MEMORY = "MEMORY"
    UNSAFE_MODEL = "UNSAFE_MODEL"
    PLAN_MISMATCH = "PLAN_MISMATCH"  # compiled for another runtime: it has to be built again
    NO_GPU = "NO_GPU"
    LOAD_ERROR = "LOAD_ERROR"
    LOAD_TIMEOUT = "LOAD_TIMEOUT"
    WARMUP_ERROR = "WARMUP_ERROR"
    GOLDEN_FAIL = "GOLDEN_FAIL"
    GATE_LATENCY = "GATE_LATENCY"
    PHASE_DEADLINE = "PHASE_DEADLINE"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    SERVER_UNAVAILABLE = "SERVER_UNAVAILABLE"
    INTERNAL = "INTERNAL"
    # ROLLED_BACK: the new engine had served.
    PROBATION_ERRORS = "PROBATION_ERRORS"
    PROBATION_LATENCY = "PROBATION_LATENCY"
    ENGINE_CRASH_LOOP = "ENGINE_CRASH_LOOP"
    UNCLEAN_REBOOT = "UNCLEAN_REBOOT"
    # Serving: why a request or an engine failed.
    BAD_REQUEST = "BAD_REQUEST"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    QUEUE_FULL = "QUEUE_FULL"
    NO_ENGINE = "NO_ENGINE"
    DEADLINE = "DEADLINE"
    ENGINE_CRASHED = "ENGINE_CRASHED"
    RUN_ERROR = "RUN_ERROR"
    RUN_TIMEOUT = "RUN_TIMEOUT"


_PERMANENT, _TRANSIENT, _POLICY = ReasonClass.PERMANENT, ReasonClass.TRANSIENT, ReasonClass.POLICY

REASON_CLASS: Final[Mapping[ReasonCode, ReasonClass]] = {
    **dict.fromkeys(ReasonCode, _PERMANENT),
    ReasonCode.NETWORK: _TRANSIENT,
    ReasonCode.DISK_SPACE: _TRANSIENT,
    ReasonCode.MEMORY: _TRANSIENT,
    ReasonCode.NO_GPU: _TRANSIENT,
    ReasonCode.DIGEST_MISMATCH: _TRANSIENT,
    ReasonCode.PHASE_DEADLINE: _TRANSIENT,
    ReasonCode.ATTEMPTS_EXHAUSTED: _TRANSIENT,
    ReasonCode.SERVER_UNAVAILABLE: _TRANSIENT,
    ReasonCode.UNCLEAN_REBOOT: _TRANSIENT,
    ReasonCode.REQUEST_TIMEOUT: _TRANSIENT,
    ReasonCode.QUEUE_FULL: _TRANSIENT,
    ReasonCode.NO_ENGINE: _TRANSIENT,
    ReasonCode.DEADLINE: _TRANSIENT,
    ReasonCode.ENGINE_CRASHED: _TRANSIENT,
    ReasonCode.EXPIRED: _POLICY,
    ReasonCode.DEV_RELEASE: _POLICY,
    ReasonCode.HELD: _POLICY,
}
