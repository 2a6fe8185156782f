"""How a run is told."""

from xml.etree import ElementTree

from cirri.cli.connectivity.report import Failure, Outcome, as_data, junit, progress, summary

FAILED = Failure(
    "b/s:curl-ipv4-0",
    "t/a (10.0.0.1) -> t/b (10.0.0.2:80)",
    "expected 403, seen \x1b<nothing>",
    "$ cirri observe\nflow",
    ("curl", "x"),
)
GOOD = Outcome("a", 3, took_s=0.5)
BAD = Outcome("b", 2, (FAILED,), took_s=1.0)
SKIPPED = Outcome("c", skipped="there is no outside here")


def test_progress() -> None:
    assert progress(GOOD) == "..."
    assert not progress(SKIPPED)
    assert progress(BAD).splitlines() == [
        ".❌",
        "  [.] Action [b/s:curl-ipv4-0: t/a (10.0.0.1) -> t/b (10.0.0.2:80)]",
        "  ❌ expected 403, seen \x1b<nothing>",
        "  ℹ  command: curl x",
        "     $ cirri observe",
        "     flow",
    ]


def test_summary_of_what_went_well() -> None:
    expected = "✅ [t] All 1 tests (3 actions) successful, 1 tests skipped, 0 scenarios skipped."

    assert summary("t", [GOOD, SKIPPED]) == expected


def test_summary_of_what_did_not() -> None:
    assert summary("t", [GOOD, BAD, SKIPPED]).splitlines() == [
        "📋 Test Report [t]",
        "❌ 1/2 tests failed (1/5 actions), 1 tests skipped, 0 scenarios skipped:",
        "Test [b]:",
        "  🟥 b/s:curl-ipv4-0: t/a (10.0.0.1) -> t/b (10.0.0.2:80): expected 403, seen \x1b<nothing>",
        "[t] 1 tests failed",
    ]


def test_junit_is_xml_that_counts() -> None:
    text = junit("connectivity test", [GOOD, BAD, SKIPPED], {"cluster": "x"}, "2026-01-01T00:00:00+00:00")

    (suite,) = ElementTree.fromstring(text.encode())
    counts = [suite.get(key) for key in ("tests", "failures", "skipped")]
    assert counts == ["3", "1", "1"]
    cases = {each.get("name"): [child.tag for child in each] for each in suite.iter("testcase")}
    assert cases == {"a": [], "b": ["failure"], "c": ["skipped"]}
    assert "expected 403, seen <nothing>" in str(next(suite.iter("failure")).get("message"))


def test_data() -> None:
    assert [(e["test"], e["result"], len(e["failures"])) for e in as_data([GOOD, BAD, SKIPPED])] == [
        ("a", "passed", 0),
        ("b", "failed", 1),
        ("c", "skipped", 0),
    ]
