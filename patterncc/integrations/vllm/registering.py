"""What vLLM calls in each of its processes, when it starts: the entry point `vllm.general_plugins`."""

from __future__ import annotations

import logging
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from patterncc.errors import UsageError
from patterncc.integrations.vllm.fitting import named

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
    _watch(custom)


def _watch(custom: Any) -> None:
    """Have vLLM refuse a configuration that names a pattern and takes another backend, which would not read it: the
    model would be dense, in silence. vLLM asks no plugin about configurations, so what checks them is wrapped."""
    from vllm.config import VllmConfig

    check = VllmConfig.__post_init__
    if getattr(check, "is_watched", False):
        return

    @wraps(check)
    def checked(self: Any) -> None:
        check(self)
        model = getattr(self.model_config, "hf_config", None)
        check_chosen(named(self.additional_config, model), self.attention_config, custom)

    checked.is_watched = True  # type: ignore[attr-defined]
    VllmConfig.__post_init__ = checked


def check_chosen(pattern: Any, attention: Any, custom: Any) -> None:
    """Raise UsageError where a pattern is named, and vLLM's attention_config takes another backend."""
    chosen = (attention.backend, *getattr(attention, "backend_per_kind", {}).values())
    if pattern is not None and custom not in chosen:
        raise UsageError(
            "additional_config, or the model's config.json, names a pattern, which the attention backend "
            f"{attention.backend or 'of vLLM'} does not read: the model would be dense",
            'attention_config={"backend": "CUSTOM"} too; for the dense model leave the pattern out, or say '
            'hf_overrides={"patterncc": None}',
        )
