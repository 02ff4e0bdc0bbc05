"""The templates of generated packages. Each is a module that runs as it stands, with a small pattern's constants."""
