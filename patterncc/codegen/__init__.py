"""From a plan to the sources of a package."""
