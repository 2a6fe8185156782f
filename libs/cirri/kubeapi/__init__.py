"""The Kubernetes API as far as reflectors and ``kubectl`` use it, over any store of objects.

Used by the double of an API server in tests (in memory, with faults) and by ``cirri lab api`` (on the
lab's bus).
"""
