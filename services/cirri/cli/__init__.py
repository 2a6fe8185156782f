"""``cirri``: the command line.  A program, not a service: it reads buckets and asks services.

Everything it prints is there as ``-o json`` too.  Exit codes: 0 done, 1 failed, 2 wrong usage.
"""
