"""``cirri trace``: ad-hoc views into the kernel, compiled when they are asked for.

``source`` has the C, ``fields`` the offsets of the running kernel's structs, ``child`` compiles by bcc in a
process of its own, ``session`` attaches what it made and holds it; each command is a module.
"""
