"""Where the time of one run goes, as a document: of the report, and of what a worker saw."""

from typing import Annotated, Final

from pydantic import Field

from stoker_contract.document import Document
from stoker_contract.names import Count, Milliseconds, Ratio, ShortText

MAX_SHARES: Final = 32


class OperatorShare(Document):
    """Time spent in one kind of operator, or in one node."""

    name: ShortText
    op_type: ShortText
    calls: Count
    ms: Milliseconds
    share: Ratio


Shares = Annotated[tuple[OperatorShare, ...], Field(max_length=MAX_SHARES)]


class OperatorProfile(Document):
    """Where the time of one run goes.

    Attributes:
        runtime: whose profiler said so.
        total_ms: all operators together, of one run.
        by_type: most time first.
        nodes: the most expensive ones.
    """

    title: ShortText
    runtime: ShortText
    total_ms: Milliseconds
    by_type: Shares
    nodes: Shares = ()
