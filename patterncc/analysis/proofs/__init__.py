"""The properties, one a file: a theorem, its proof, and the search for the smallest witness."""
