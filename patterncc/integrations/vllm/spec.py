"""A KV cache whose pages die: how large vLLM plans it, and the manager that gives its dead pages back.

The spec is not derived from that of full attention: for such specs vLLM takes any prefix of a hit in its prefix cache
for a hit too, and a shorter one may need pages that a longer one does not. Layers whose pages die alike share a spec,
so vLLM's planner puts them, and no others, into groups with block tables of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from patterncc.integrations.vllm.pages import Pages, pages_of


@dataclass(frozen=True, kw_only=True)
class PatternSpec(AttentionSpec):
    """The KV cache of layers whose pages die alike. It travels from workers to the scheduler, so it is plain data."""

    pattern: str = ""  # a name, a path or a text: `pages.package_of` loads it
    layers: tuple[int, ...] = ()  # a page is dead when it is for all of these
    ahead: int = 0  # the most tokens that have pages and are not computed yet

    @property
    def pages(self) -> Pages:
        return pages_of(self.pattern, self.layers, self.block_size)

    def max_memory_usage_bytes(self, vllm_config: Any) -> int:
        """Of one request of the engine's greatest length: of the pages that it holds at once."""
        return self.pages.most_held(vllm_config.model_config.max_model_len, self.ahead) * self.page_size_bytes

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, KVCacheSpec]) -> bool:
        """Whether all layers may share block tables: not where their pages die at different lengths."""
        return all(
            isinstance(other, PatternSpec) and (other.pattern, other.layers) == (self.pattern, self.layers)
            for other in kv_cache_specs.values()
        )


def spec_like(spec: Any, pattern: str, layers: tuple[int, ...], ahead: int) -> PatternSpec:
    """The spec of full attention as one whose pages die."""
    same = {field.name: getattr(spec, field.name) for field in fields(AttentionSpec) if field.init}
    return PatternSpec(**same, pattern=pattern, layers=layers, ahead=ahead)


class PatternManager(SingleTypeKVCacheManager):
    """Gives the dead pages of running requests back to the pool, and finds what the prefix cache still serves."""

    kv_cache_spec: PatternSpec

    def __init__(self, kv_cache_spec: PatternSpec, *arguments: Any, **options: Any) -> None:
        super().__init__(kv_cache_spec, *arguments, **options)
        self._looked: dict[str, int] = {}  # by request: so many tokens had been computed when its pages were looked at

    def remove_skipped_blocks(
        self, request_id: str, processed_computed_tokens: int, num_prompt_tokens: int | None = None
    ) -> None:
        """Give back the pages that died since the last call; the null page stands in their places."""
        blocks = self.req_to_blocks.get(request_id)
        before = self._looked.get(request_id, 0)
        if not blocks or processed_computed_tokens <= before:
            return
        self._looked[request_id] = processed_computed_tokens
        died = self.kv_cache_spec.pages.died(before, processed_computed_tokens)
        freed = []
        for page in died:
            if page < len(blocks) and not blocks[page].is_null:
                freed.append(blocks[page])
                blocks[page] = self._null_block
        if freed:
            self.block_pool.free_blocks(freed)

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        """The pages of a request that ends, or waits again, as the base class has them."""
        self._looked.pop(request_id, None)
        return super().pop_blocks_for_free(request_id)

    def free(self, request_id: str) -> None:
        self._looked.pop(request_id, None)
        super().free(request_id)

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[Any],
        *arguments: Any,
        apply_admission_cap: bool = False,
        **options: Any,
    ) -> int:
        """Pages to allocate now; where vLLM asks whether all of a request fits, no more than it holds at once."""
        wanted = super().get_num_blocks_to_allocate(request_id, num_tokens, new_computed_blocks, *arguments, **options)
        if not apply_admission_cap or request_id in self.num_cached_block:
            return wanted
        held = [block for block in new_computed_blocks if not block.is_null]
        most = max(self.kv_cache_spec.pages.most_held(num_tokens, self.kv_cache_spec.ahead) - len(held), 0)
        return min(wanted, most + self._get_num_evictable_blocks(held))

    def get_num_common_prefix_blocks(self, running_request_id: str) -> int:
        """None: no attention here computes a common prefix once for several requests."""
        return 0

    @classmethod
    def find_longest_cache_hit(
        cls,
        block_hashes: Any,
        max_length: int,
        kv_cache_group_ids: list[int],
        block_pool: Any,
        kv_cache_spec: Any,
        drop_eagle_block: bool,
        alignment_tokens: int,
        dcp_world_size: int = 1,
        pcp_world_size: int = 1,
    ) -> tuple[tuple[list[Any], ...], int]:
        """Pages for each group, and the tokens that they serve: the longest prefix of which each page is cached, or
        dead at its end. Dead pages are the null page, cached or not."""
        if drop_eagle_block or dcp_world_size * pcp_world_size > 1:
            raise NotImplementedError("patterncc: speculative decoding and context parallelism are refused at start")
        size, pages = kv_cache_spec.block_size, kv_cache_spec.pages
        if block_pool.hash_block_size != size:
            from vllm.v1.core.kv_cache_utils import BlockHashListWithBlockSize

            block_hashes = BlockHashListWithBlockSize(block_hashes, block_pool.hash_block_size, size)
        found: list[Any] = []

        def look() -> Any:
            for page in range(min(max_length // size, len(block_hashes))):
                found.append(block_pool.get_cached_block(block_hashes[page], kv_cache_group_ids))
                yield found[-1] is not None

        most = min(max_length // size, len(block_hashes))
        hit = pages.longest_hit(look(), most, max(alignment_tokens // size, 1))
        alive = pages.alive(hit)
        null = block_pool.null_block
        blocks = tuple(
            [found[page][n] if alive[page] else null for page in range(hit)] for n in range(len(kv_cache_group_ids))
        )
        return blocks, hit * size


def register_spec() -> None:
    """Make the spec known to vLLM, as often as it is called. Its own ones come first: a registry that is not empty
    counts as filled."""
    KVCacheSpecRegistry._ensure_registered()
    KVCacheSpecRegistry.register(PatternSpec, PatternManager, uniform_type_base_spec=PatternSpec)


register_spec()  # here, since a scheduler unpickles workers' specs and may import nothing else of this folder
