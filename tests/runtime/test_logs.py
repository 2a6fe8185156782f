"""One JSON object per line, whatever is logged."""

import io
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cirri.runtime.logs import Log, StandardLogs


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_facts_and_binding() -> None:
    out = io.StringIO()
    log = Log("info", out, service="policy")
    log.bind(node="n1").warning("slow", revision=3)
    log.info("fast")
    first, second = lines(out)
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {"level": "warning", "event": "slow", "service": "policy", "node": "n1", "revision": 3}
    assert "node" not in second


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level(level: str, count: int) -> None:
    out = io.StringIO()
    log = Log(level, out)
    log.debug("a")
    log.info("a")
    log.warning("a")
    log.error("a")
    assert len(lines(out)) == count


def test_anything_can_be_a_fact() -> None:
    out = io.StringIO()
    Log("info", out).info("odd", path=Path("/x"), error=ValueError("v"), lines="a\nb", many={1: (2, None)})
    (line,) = lines(out)
    assert (line["path"], line["error"], line["lines"]) == ("/x", "v", "a\nb")


def test_exception_has_its_trace() -> None:
    out = io.StringIO()
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        Log("info", out).exception("failed")
    assert "ZeroDivisionError: by zero" in lines(out)[0]["trace"]


def test_what_other_packages_log() -> None:
    out = io.StringIO()
    logger = logging.Logger("other")
    logger.addHandler(StandardLogs(Log("info", out)))
    logger.info("not this")
    logger.warning("%d things", 3)
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logger.exception("failed")
    warning, error = lines(out)
    assert (warning["event"], warning["level"], warning["logger"]) == ("3 things", "warning", "other")
    assert error["level"] == "error"
    assert "by zero" in error["trace"]
