"""What tests of loading share: the beginning of a pattern, and what one is refused with."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc import language
from patterncc.errors import PatternError

HEAD = "pattern: 1\nname: demo\nheads: 8\nkv_heads: 2\nblock: 64\n"


def refusal(text: str, folder: Path | None = None) -> str:
    with pytest.raises(PatternError) as caught:
        language.loads(text, "a.yaml", folder)
    return caught.value.render()
