"""What vLLM calls in each of its processes, when it starts: the entry point `vllm.general_plugins`."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

from patterncc.errors import UsageError

OLDEST, NEXT = "0.28", "0.34"  # of [OLDEST, NEXT) those were run that the guide names
BACKEND = "patterncc.integrations.vllm.backend.PatternBackend"

_log = logging.getLogger("vllm.patterncc")  # below vLLM's own logger, so that its settings hold


def check_version() -> None:
    """Raise UsageError where the vLLM that is installed is outside of [OLDEST, NEXT)."""
    try:
        installed = version("vllm")
    except PackageNotFoundError:
        raise UsageError("vLLM is not installed", "pip install 'patterncc[vllm]'") from None
    from packaging.version import Version  # vLLM's own needs bring it

    if not Version(OLDEST) <= Version(Version(installed).base_version) < Version(NEXT):
        raise UsageError(
            f"vLLM {installed} is installed; patterncc works with {OLDEST} and newer, below {NEXT}",
            "pip install 'patterncc[vllm]'",
        )


def register() -> None:
    """Make the backend known to vLLM as CUSTOM, as often as it is called.

    Nothing is raised here: vLLM calls this wherever patterncc is installed, for users of patterns and for others. Where
    the version does not fit, or another plugin has the name, that is logged; whoever then asks for the backend is told.
    """
    try:
        check_version()
    except UsageError as error:
        _log.warning("patterncc: %s", error)
    try:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    except ImportError:
        return  # none, or one before OLDEST: the warning says so
    custom = AttentionBackendEnum.CUSTOM
    if custom.is_overridden() and custom.get_path() != BACKEND:
        _log.warning(
            "patterncc: the backend CUSTOM is %s; patterns are not registered. VLLM_PLUGINS=patterncc loads this "
            "plugin alone",
            custom.get_path(),
        )
        return
    register_backend(custom, BACKEND)
