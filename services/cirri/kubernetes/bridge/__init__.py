"""The objects of an API server, in bucket ``resources``: one list and one watch for each kind.

``reflector`` decides, ``following`` asks; ``kept`` says what is kept of each kind, ``mirror`` what becomes
of it.
"""
