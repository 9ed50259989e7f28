"""``python -m maskserve`` is ``maskserve``."""

from maskserve.cli.main import main

if __name__ == "__main__":
    main()
