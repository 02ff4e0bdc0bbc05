"""What is here besides tests belongs to `python -m tests.integrations.vllm`, and is not imported to be tested."""

collect_ignore = ["cpu", "case.py", "install.py", "__main__.py"]
