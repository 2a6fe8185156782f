"""Requests that are not what they look like, to some server at least."""

SECRET = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"
G = b"GET /public HTTP/1.1\r\nHost: a\r\n"
P = b"POST /ok HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def framing(*lines: bytes, body: bytes = b"0\r\n\r\n" + SECRET) -> bytes:
    return P + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def target(text: bytes) -> bytes:
    return b"GET " + text + b" HTTP/1.1\r\nHost: a\r\n\r\n"


CORPUS: list[bytes] = [
    # Two ways to say how long a body is.
    framing(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    framing(b"Transfer-Encoding: chunked", b"Content-Length: 6"),
    framing(b"Content-Length: 4", b"Content-Length: 40"),
    framing(b"Content-Length: 4, 40"),
    framing(b"Content-Length: +4"),
    framing(b"Content-Length: -4"),
    framing(b"Content-Length: 0x4"),
    framing(b"Content-Length: 4 4"),
    framing(b"Content-Length:"),
    framing(b"Content-Length: 99999999999999999999"),
    framing(b"content_length: 4", b"Content-Length: 40"),
    *(
        framing(b"Content-Length: 4", line)
        for line in (
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:chunked",
            b"Transfer-Encoding:\tchunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding\r\n : chunked",
            b" Transfer-Encoding: chunked",
            b"Transfer-Encoding: cHuNkEd",
            b'Transfer-Encoding: "chunked"',
            b"X: y\nTransfer-Encoding: chunked",
            b"X: y\rTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\x00",
            b"Transfer-Encoding: ,chunked",
        )
    ),
    framing(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    framing(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    # Chunks.
    *(
        P + CHUNKED + b"\r\n" + body + SECRET
        for body in (
            b"5\n12345\r\n0\r\n\r\n",
            b"5 \r\n12345\r\n0\r\n\r\n",
            b"5;a=b\r\n12345\r\n0\r\n\r\n",
            b"0x5\r\n12345\r\n0\r\n\r\n",
            b"5;\n\r\n12345\r\n0\r\n\r\n",
            b"-1\r\n",
            b"ffffffffffffffff1\r\n",
            b"5\r\n12345XX0\r\n\r\n",
            b"0\r\n\r\n\r\n",
            b"0\r\nContent-Length: 9\r\n\r\n",
            b"0\n\n",
            b"5\r\n1234567890\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
        )
    ),
    # Header lines.
    G + b"X: a\r\n b\r\n\r\n" + SECRET,
    G + b"X: a\r\n\tX-Tenant: acme\r\n\r\n",
    G + b"X : a\r\n\r\n",
    G + b": a\r\n\r\n",
    G + b"X\r\n\r\n",
    G + b"X: a\nY: b\r\n\r\n",
    G + b"X: a\x00b\r\n\r\n",
    G + b"X\x00: a\r\n\r\n",
    G + b"X: \xff\xfe\r\n\r\n",
    G + b"X: a\rY: b\r\n\r\n",
    b"GET /public HTTP/1.1\nHost: a\n\n" + SECRET,
    G + b"\r\r\n" + SECRET,
    b"GET /t HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\nX-Tenant: evil\r\n\r\n",
    b"GET /t HTTP/1.1\r\nHost: a\r\nX-Tenant: evil\r\nX-Tenant: acme\r\n\r\n",
    b"GET /t HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\nConnection: X-Tenant\r\n\r\n",
    b"GET /t HTTP/1.1\r\nHost: a\r\nX_Tenant: acme\r\n\r\n",
    b"GET /t HTTP/1.1\r\nHost: a\r\nX-Tenant:  acme \r\n\r\n",
    b"GET /public HTTP/1.1\r\n\r\n",
    G + b"Host: b\r\n\r\n",
    b"GET /public HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET /public HTTP/1.1\r\nHost: a/../b\r\n\r\n",
    b"GET /public HTTP/1.1\r\nHost: a@b\r\n\r\n",
    # Request lines.
    b"GET  /public HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public  HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET\t/public\tHTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n" + G + b"\r\n",
    b" GET /public HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public\r\n\r\n" + SECRET,
    b"GET /public HTTP/1.0\r\n\r\n" + SECRET,
    b"GET /public HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + SECRET,
    b"GET /public HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /public HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /public HTTP/1.1 x\r\nHost: a\r\n\r\n",
    b"GET /secret\r\nX: /public HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GE\x00T /public HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + SECRET,
    b"CONNECT /public HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
    target(b"http://evil/public"),
    target(b"http://evil/secret"),
    target(b"http://a"),
    target(b"//evil/public"),
    target(b"public"),
    # Paths that a server may read in another way.
    *map(
        target,
        (
            b"/public/../secret",
            b"/public/%2e%2e/secret",
            b"/public/%2E%2e%2fsecret",
            b"/public%2f..%2fsecret",
            b"/public/..%2fsecret",
            b"/public/..%5csecret",
            b"/public\\..\\secret",
            b"/public/\\../secret",
            b"/public//..//../secret",
            b"/./public",
            b"//public",
            b"/public/./x",
            b"/public/x/../../secret",
            b"/public/%252e%252e/secret",
            b"/public/..%00/secret",
            b"/public%00",
            b"/public/\xc0\xae\xc0\xae/secret",
            b"/public#/../secret",
            b"/public/#",
            b"/public?/../secret",
            b"/public/?x=%2f..%2fsecret",
            b"/secret?/public/",
            b"/secret/%2e%2e/public",
            b"/public/x y",
            b"/%70ublic",
            b"/publi%63/x",
            b"/PUBLIC",
            b"/public/\x7f",
            b"/public/\xe2\x82\xac",
            b"",
            b"*",
            b"/public/%",
            b"/public/%zz",
            b"/public/..;/secret",
        ),
    ),
    # Others in the same connection.
    G + b"\r\n" + SECRET,
    G + b"Connection: close\r\n\r\n" + SECRET,
    P + b"Content-Length: 0\r\n\r\n" + SECRET,
    G + b"Content-Length: %d\r\n\r\n" % len(SECRET) + SECRET,
    P + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n" + SECRET,
    G
    + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    + SECRET,
    G + b"Upgrade: websocket\r\n\r\n" + SECRET,
    G + b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n" + SECRET,
]
