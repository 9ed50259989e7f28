"""Jobs: many photos in one request, worked off behind the interactive ones.

``uploads`` writes a request's body to disk, ``store`` keeps jobs and results, ``photos`` gives
the photos one by one, ``worker`` segments them, and ``routes`` is the HTTP side of it.
"""

__all__: list[str] = []
