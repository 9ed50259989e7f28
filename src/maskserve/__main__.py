"""``python -m maskserve`` is ``maskserve``."""

from maskserve.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
