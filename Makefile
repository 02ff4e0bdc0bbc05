# For fingers used to make. All of it is run.py, which needs nothing but Python 3.10.
PYTHON ?= python3

.PHONY: demo test slow gpu compiled peers transformers-oldest megatron vllm bench bench-gpu gpu-packages needle docs lint types setup
demo test slow gpu compiled peers transformers-oldest megatron vllm bench bench-gpu gpu-packages needle docs lint types setup:
	@$(PYTHON) run.py $@
