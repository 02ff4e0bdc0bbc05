"""vLLM: a compiled pattern as its attention backend, and a paged KV cache that gives dead pages back.

LLM(model, attention_config={"backend": "CUSTOM"}, additional_config={"patterncc": "s2_hybrid"})

registering   found by vLLM's entry point in each of its processes: version, and the backend's name
fitting       a model or an engine that is not what the pattern describes is refused
pages         when pages die, how many a request holds at most, what a prefix cache still serves; no vLLM in it
spec          what vLLM's planner and scheduler know of such a cache: its size, and the manager that frees pages
metadata      of a batch
attending     one attention layer: its keys go into vLLM's pages, its queries to the package's functions
backend       one backend a kind of layers

Only `spec`, `metadata`, `attending` and `backend` import vLLM, so patterncc may be installed where vLLM is not.
"""

from patterncc.integrations.vllm.registering import register

__all__ = ["register"]
