"""Pictures of patterns: in the terminal, and as SVG, PNG and HTML files."""

from patterncc.pictures.show import show_terminal
from patterncc.pictures.write import write

__all__ = ["show_terminal", "write"]
