"""The report as files of a release folder, and reading it back."""

import json
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.report.document import MAX_BYTES, Report
from stoker_builder.report.html.page import to_html
from stoker_builder.report.markdown import to_markdown
from stoker_contract.errors import ContractError

JSON: Final = "report.json"
MARKDOWN: Final = "report.md"
HTML: Final = "report.html"


def report_files(report: Report) -> dict[str, bytes]:
    """Every form of a report, by file name."""
    return {JSON: to_json(report), MARKDOWN: to_markdown(report), HTML: to_html(report)}


def to_json(report: Report) -> bytes:
    """Write the report for machines."""
    return json.dumps(report.to_object(), indent=2, allow_nan=False).encode() + b"\n"


def read_report(path: Path) -> Report:
    """Read the report of a release folder, or a ``report.json``.

    Raises:
        BuildError: ``REPORT``, there is none, or it is none.
    """
    file = path / JSON if path.is_dir() else path
    hint = "give a release folder as `stoker build` writes it"
    try:
        return Report.parse(file.read_bytes(), max_bytes=MAX_BYTES)
    except OSError as error:
        detail = f"{file} can not be read: {error.strerror or error}"
        raise BuildError(BuildCode.REPORT, detail, hint) from None
    except ContractError as error:
        raise BuildError(BuildCode.REPORT, f"{file}: {error.detail}", hint) from None
