"""How fast, on this machine: the stages of a photo, the server as its clients see it, its start.

Import from the modules: this package imports none of them, so that timing stages does not cost
what starting a server needs.
"""

__all__: list[str] = []
