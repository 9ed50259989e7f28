"""Many photos to tables: rows, their files, and going on where a run was killed.

    storage -> run -> worker -> rows

A run is cut into parts. ``worker`` works off one part after another: in a loop on this machine, or
in each of the actors of ``maskserve.cluster.batch``. Import from the modules: this package imports
none of them.
"""

__all__: list[str] = []
