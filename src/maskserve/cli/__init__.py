"""The command line: one module for each command, whose heavy imports wait until it runs."""

__all__: list[str] = []
