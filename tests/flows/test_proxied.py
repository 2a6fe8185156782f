"""What proxies saw, as rows."""

import pytest

from cirri.flows.proxied import rows_of
from cirri.history import Reply, Verdict
from cirri.layout import address_text
from cirri.model import L7Record
from cirri.model.records import HttpFacts, RecordType
from cirri.model.records import Verdict as Said

CASES: list[tuple[RecordType, Said, Verdict, Reply]] = [
    ("request", "forwarded", Verdict.FORWARDED, Reply.NO),
    ("request", "dropped", Verdict.DROPPED, Reply.NO),
    ("request", "error", Verdict.ERROR, Reply.NO),
    ("response", "forwarded", Verdict.FORWARDED, Reply.YES),
    ("response", "dropped", Verdict.FORWARDED, Reply.YES),  # the 403 reached the client
    ("response", "error", Verdict.ERROR, Reply.YES),
]


@pytest.mark.parametrize(("kind", "said", "verdict", "reply"), CASES)
def test_rows(kind: RecordType, said: Said, verdict: Verdict, reply: Reply) -> None:
    record = L7Record(
        time=5,
        node="node1",
        type=kind,
        verdict=said,
        direction="ingress",
        source="10.52.0.1:4000",
        destination="10.52.1.1:80",
        source_identity=1,
        destination_identity=2,
        http=HttpFacts(method="PUT", code=403 if kind == "response" else 0),
    )
    (row,) = rows_of([record], 7)
    assert (row["verdict"], row["reply"], row["seq"], row["l7"]) == (verdict, reply, 7, 1)
    ends = [("10.52.0.1", 4000, 1), ("10.52.1.1", 80, 2)]
    told = [
        (address_text(row[side].tobytes()), row[f"{side}_port"], row[f"{side}_identity"])
        for side in ("source", "destination")
    ]
    assert told == (ends if kind == "request" else ends[::-1])
