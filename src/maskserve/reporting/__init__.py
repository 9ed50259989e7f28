"""Pages, pictures and tables about how good a model is. No torch in here.

Import from the modules: matplotlib, which draws the charts, is not part of the base install.
"""

__all__: list[str] = []
