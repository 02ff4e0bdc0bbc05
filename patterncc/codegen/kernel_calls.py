"""How the launchers of a package call its kernels, for full tiles and aligned tensors: what is compiled for a GPU that
is not here. A test holds this equal to what the launchers do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from patterncc.codegen.cache_kinds import cache_kinds

ITEM = {"bf16": 2, "fp16": 2, "fp32": 4}  # bytes of a number
PAGE, FULL = 64, 1 << 20  # of the caches that the report is about; enough rows for any tile
MERGING, SHARING = "decode, several programs", "decode, near keys shared"
PACKED = {"q_starts": "i32", "kv_starts": "i32"}


@dataclass(frozen=True)
class Call:
    """A kernel as a launcher calls it: what for, constexpr arguments, and the types of pointers (None: not given)."""

    kernel: str
    purpose: str
    warps: int
    stages: int
    constants: dict[str, Any]
    pointers: dict[str, str | None]


def calls(package: ModuleType, arch: str, dtype: str) -> Iterator[Call]:
    """Every call of a kernel of the package on `arch`, with tensors of this dtype."""
    launchers = _Launchers(package, arch, dtype)
    yield from launchers.forward()
    if launchers.pattern.NEEDS_SINKS:
        yield from launchers.sinks()
    yield from launchers.backward()
    yield from launchers.cache()


class _Launchers:
    """The launchers of a package on one architecture."""

    def __init__(self, package: ModuleType, arch: str, dtype: str) -> None:
        self.pattern, self.configs = package.pattern, package.launch.configs
        self.arch, self.dtype, self.item = arch, dtype, ITEM[dtype]
        self.dim = max(self.pattern.HEAD_DIM, self.pattern.V_HEAD_DIM)
        self.share = 1 << (self.pattern.HEADS // self.pattern.KV_HEADS - 1).bit_length()
        self.is_table, self.has_strides = self.pattern.FORM == "table", bool(package.kernels.row_map.STRIDES)
        self.small = self.configs.Config(1, 1, 4, 1)  # of kernels that are the same for every size
        self.known: dict[str, str | None] = {
            **dict.fromkeys(("q", "k", "v", "out", "dout", "dq", "dk", "dv"), dtype),
            **dict.fromkeys(("lse", "dlse", "log_sum", "delta", "parts", "lses"), "fp32"),
            **dict.fromkeys(("groups", "items", "members", "summed", "counts"), "i32"),
            **dict.fromkeys(("shares", "q_starts", "kv_starts", "pages")),
            "pattern": "i64" if self.is_table else "i32",
            **dict.fromkeys(("columns", "rows"), "i32" if self.is_table else None),
        }

    def forward(self) -> Iterator[Call]:
        """Of attention in all its forms, and of merging parts."""
        alone = dict.fromkeys(("parts", "lses", "counts"))
        merged = [MERGING] if self.configs.merges(self.arch, self.share * self.pattern.V_HEAD_DIM) else []
        merged += [SHARING] if merged and self._shares() else []
        steps = (("decode", PAGE), *((purpose, PAGE) for purpose in merged))
        for purpose, page in (("", 0), ("varlen", 0), ("paged", PAGE), *steps):
            is_step, rows = page > 0 and purpose != "paged", self.share if purpose in merged else 0
            config = self.configs.forward(self.arch, self.dim, self.item, 16 if is_step else FULL)
            pointers = (PACKED if purpose else {}) | ({"pages": "i32"} if page else {}) | ({} if rows else alone)
            pointers |= {"shares": "i32"} if purpose == SHARING else {}
            shape = self._tile(config, 1 if is_step else config.rows)
            flags = {"PAGE": page, "IS_PACKED": bool(purpose), "IS_LOOKED_UP": self.is_table or page > 0}
            yield self._call("attn_fwd", purpose, config, pointers, **shape, **flags, MERGED=rows)
        yield self._call("attn_combine", "", self.small, {}, SPLITS=16)

    def _shares(self) -> bool:
        """Whether query heads of some KV head load near keys together and far ones apart."""
        pattern, configs = self.pattern, self.configs
        share = pattern.HEADS // pattern.KV_HEADS
        own = {layer[n : n + share] for layer in pattern.CLASS_OF for n in range(0, len(layer), share)}
        near = (configs.near([[pattern.CLASSES[klass] for klass in set(kinds)]], pattern.BLOCK) for kinds in own)
        return pattern.CAUSAL and share <= configs.FEW_ROWS and any(near)

    def sinks(self) -> Iterator[Call]:
        """Of what learned sinks add to the softmax's sums, and of their gradients."""
        for purpose, starts in (("", None), ("varlen", "i32")):
            yield self._call("attn_sinks", purpose, self.small, {"sinks": self.dtype, "starts": starts}, ROWS=16)
        yield self._call("attn_bwd_sinks", "", self.small, dict.fromkeys(("sinks", "dsinks"), self.dtype), ROWS=1024)

    def backward(self) -> Iterator[Call]:
        """Of the gradients, and of what is done before and after them."""
        yield self._call("attn_bwd_prepare", "", self.small, {}, BLOCK_M=16)
        for purpose, pointers in (("", {}), ("varlen", PACKED)):
            yield from self._dq(purpose, pointers)
            yield from self._dkdv(purpose, pointers)
        yield self._call("attn_bwd_sum", "", self.small, {}, BLOCK_N=16)
        if self.has_strides and self.dtype != "fp32":
            for is_v in (True, False)[: 1 + (self.pattern.HEAD_DIM != self.pattern.V_HEAD_DIM)]:
                yield self._call("attn_bwd_round", "", self.small, {"x": "fp32", "y": self.dtype}, IS_V=is_v, ROWS=16)

    def cache(self) -> Iterator[Call]:
        """Of a KV cache: its newest token is put, and attends what is held."""
        if not self.configs.merges(self.arch, 1):  # torch's operators do it
            return
        config = self.configs.newest(self.arch, self.dim, self.item)
        held = dict.fromkeys(("held_k", "held_v", "odd"), self.dtype) | {"until": "i32"}
        held |= dict.fromkeys(("index", "lengths", "longer", "news"), "i64")
        sinks = {"sinks": self.dtype if self.pattern.NEEDS_SINKS else None}
        for kind in cache_kinds(self.pattern):
            tables = {"table": "i32", "windows": "i32" if kind.has_windows else None}
            tables |= {"sinks": "i32" if kind.has_sinks else None}
            classes = 1 if kind.are_alike else self.share
            yield self._call("attn_cache_put", kind.purpose(1), self.small, held | tables, BLOCK_C=classes)
            shape = {"BLOCK_H": config.rows, "BLOCK_N": config.keys, "ARE_ALIKE": kind.are_alike}
            for splits, alone in ((1, dict.fromkeys(("parts", "counts"))), (2, {})):
                yield self._call("attn_cache_read", kind.purpose(splits), config, held | sinks | alone, **shape)

    def _dq(self, purpose: str, pointers: Mapping[str, str | None]) -> Iterator[Call]:
        pattern, configs = self.pattern, self.configs
        flags = {"IS_PACKED": bool(purpose), "IS_LOOKED_UP": self.is_table}
        dense = {configs.keeps_all([pattern.CLASSES[klass] for klass in layer]) for layer in pattern.CLASS_OF if layer}
        chosen = {configs.dq(self.arch, self.dim, self.item, FULL, is_dense) for is_dense in dense}
        for config in sorted(chosen, key=repr):
            yield self._call("attn_bwd_dq", purpose, config, pointers, **self._tile(config, config.rows), **flags)

    def _dkdv(self, purpose: str, pointers: Mapping[str, str | None]) -> Iterator[Call]:
        config = self.configs.dkdv(self.arch, self.dim, self.item, bool(purpose))
        keys = config.keys if self.pattern.ROWS_PER_TILE_FREE else min(config.keys, self.pattern.BLOCK)
        flags = {"IS_PACKED": bool(purpose), "IS_LOOKED_UP": self.is_table}
        are_apart = bool(purpose) and self.has_strides
        kinds = {"near": (True, False), "strides": (False, True)} if are_apart else {"": (True, self.has_strides)}
        for kind, (near, strided) in kinds.items():
            which, sums = f"{kind} {purpose}".strip(), dict.fromkeys(("dk", "dv"), "fp32" if kind else self.dtype)
            shape = {"BLOCK_M": config.rows, "BLOCK_N": keys, "HAS_NEAR": near, "HAS_STRIDES": strided}
            yield self._call("attn_bwd_dkdv", which, config, {**pointers, **sums}, **shape, **flags)

    def _call(
        self, kernel: str, purpose: str, config: Any, pointers: Mapping[str, str | None], **constants: Any
    ) -> Call:
        constants |= {"ALIGN": 16 // self.item, "STAGES": config.stages, "PRECISION": "ieee"}
        return Call(kernel, purpose, config.warps, config.stages, constants, self.known | dict(pointers))

    def _tile(self, config: Any, positions: int) -> dict[str, Any]:
        """The tile of a configuration: so many positions of queries, at most, and heads that share their keys."""
        block_q = positions if self.pattern.ROWS_PER_TILE_FREE else min(positions, self.pattern.BLOCK)
        block_h = max(min(config.rows // block_q, self.share), 16 // block_q)
        return {"BLOCK_Q": block_q, "BLOCK_H": block_h, "BLOCK_N": config.keys}
