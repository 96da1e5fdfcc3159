"""The results of `event-router test` as JUnit XML, for CI systems; floor 7."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from router.cli.write.case_reports import lines_of

# Characters that XML 1.0 can't contain, not even as escapes of XML.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(suites: Iterable[tuple[Mapping[str, Any], float]]) -> bytes:
    """Return a JUnit XML document of reports. Each report comes with the duration of its tests in seconds."""
    root = ET.Element("testsuites", name="event-router")
    for report, seconds in suites:
        root.append(_suite(report, seconds))
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(each.get(key, 0)) for each in root)))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(report: Mapping[str, Any], seconds: float) -> ET.Element:
    name = _clean(report["config"])
    counts = {"tests": str(len(report["tests"])), "failures": str(report["missed"]), "errors": "0", "skipped": "0"}
    suite = ET.Element("testsuite", {"name": name, **counts, "time": f"{seconds:.3f}"})
    for case in report["tests"]:
        place = {"file": _clean(case["file"]), "line": str(case["line"])}
        element = ET.SubElement(suite, "testcase", {"name": _clean(case["name"]), "classname": name, **place})
        if not case["ok"]:
            missed = ", ".join(dict.fromkeys(miss["key"] for miss in case["misses"]))
            failure = ET.SubElement(element, "failure", {"message": _clean(f"missed: {missed}"), "type": "miss"})
            failure.text = _clean("\n".join(lines_of(case)))
    return suite


def _clean(text: str) -> str:
    r"""Return the text with an escape such as `\u001b` in place of each character that XML does not allow."""
    return _NOT_IN_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
