"""The goldens are packages to read and to run, not modules with tests."""

collect_ignore_glob = ["*/*.py", "*/*/*.py"]
