"""Requests that Envoy told nothing of are counted, each once."""

from cirri.l7proxy.sampling import Untold, read_count


def test_the_count_is_read() -> None:
    body = "2e\r\naccess_log.process_ratelimit.denied: 12\n\r\n0\r\n"
    assert read_count(f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}") == 12
    assert read_count("") == read_count("HTTP/1.1 503 no\r\n\r\n") == 0


def test_each_request_is_counted_once() -> None:
    untold = Untold()
    # 5 before this service lived; then another Envoy, none at all, and one that counted before it was asked.
    steps = [(5, 0), (5, 0), (8, 3), (2, 2), (2, 0), (0, 0), (3, 3)]
    assert [untold.more(counted) for counted, _ in steps] == [more for _, more in steps]
