"""vLLM's own pool of pages under the manager: what is given back, asked for, and served by the prefix cache."""

# ruff: noqa: E402

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed; `python3 run.py vllm` makes an environment with it")
pytestmark = pytest.mark.peers

from vllm.v1.core.block_pool import BlockPool
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from patterncc.integrations.vllm import spec as own
from patterncc.integrations.vllm.backend import PatternBackend, backend_of
from tests.integrations.vllm.test_pages import SHARDS, text

SIZE, AHEAD = 16, 64


def full() -> FullAttentionSpec:
    return FullAttentionSpec(block_size=SIZE, num_kv_heads=2, head_size=16, dtype=torch.float32)


def spec(shard: str, layers: tuple[int, ...] = (0,)) -> own.PatternSpec:
    return own.spec_like(full(), text(shard), layers, AHEAD)


def manager(of: own.PatternSpec, pages: int = 100, caching: bool = False) -> own.PatternManager:
    pool = BlockPool(num_gpu_blocks=pages, enable_caching=caching, hash_block_size=SIZE)
    return own.PatternManager(
        of, block_pool=pool, enable_caching=caching, kv_cache_group_id=0, scheduler_block_size=SIZE
    )


@pytest.mark.parametrize("shard", SHARDS)
def test_a_request_holds_the_pages_that_live_and_gives_back_the_others_once(shard: str) -> None:
    known = manager(spec(shard))
    pool, draw = known.block_pool, random.Random(1)
    free, computed, processed, peak = pool.get_num_free_blocks(), 0, 0, 0
    known.num_cached_block["r"] = 0  # a running request
    while computed < 600:
        step = draw.randint(1, AHEAD // 2)
        processed = draw.randint(max(processed, computed - AHEAD // 2), computed)  # steps before may be on their way
        known.remove_skipped_blocks("r", processed)
        asked = known.get_num_blocks_to_allocate("r", computed + step, [], computed, computed, computed + step)
        assert asked == len(known.allocate_new_blocks("r", computed + step, computed + step))
        blocks = known.req_to_blocks["r"]
        alive = known.kv_cache_spec.pages.dead_from(len(blocks)) > processed
        assert [not block.is_null for block in blocks] == alive.tolist()
        assert free - pool.get_num_free_blocks() == alive.sum()
        peak = max(peak, int(alive.sum()))
        computed += step
    assert peak <= known.kv_cache_spec.pages.most_held(computed, AHEAD)
    known.free("r")
    assert pool.get_num_free_blocks() == free and not known._looked


def test_a_request_that_comes_again_is_looked_at_from_its_first_page() -> None:
    known = manager(spec("stride"))
    free = known.block_pool.get_num_free_blocks()
    for _ in range(2):  # preempted in between
        known.allocate_new_blocks("r", 300, 300)
        known.remove_skipped_blocks("r", 300)
        assert free - known.block_pool.get_num_free_blocks() == sum(known.kv_cache_spec.pages.alive(18)) + 1
        known.block_pool.free_blocks(reversed(known.pop_blocks_for_free("r")))
    assert known.block_pool.get_num_free_blocks() == free


def test_all_of_a_request_fits_where_what_it_holds_at_once_does() -> None:
    known = manager(spec("stride"))
    whole = 600 // SIZE + 1
    ask = lambda **options: known.get_num_blocks_to_allocate("r", 600, [], 0, 0, 600, **options)  # noqa: E731
    most = known.kv_cache_spec.pages.most_held(600, AHEAD)
    assert ask() == whole > ask(apply_admission_cap=True) == most


def test_the_planner_reserves_what_a_request_holds_at_once() -> None:
    config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=600))
    for shard in SHARDS:
        of = spec(shard)
        assert of.max_memory_usage_bytes(config) == of.pages.most_held(600, AHEAD) * full().page_size_bytes
    assert spec("dense").max_memory_usage_bytes(config) == 38 * full().page_size_bytes


def test_layers_share_block_tables_only_where_their_pages_die_alike() -> None:
    """What vLLM's planner asks; the engine's case "layers" sees what it makes of the answers."""
    alike = {f"layers.{n}": spec("stride") for n in range(3)}
    assert spec("stride").is_uniform_with_collection(alike) and own.PatternSpec.merge(list(alike.values()))
    other = alike | {"layers.0": spec("stride", (1,))}
    assert not spec("stride").is_uniform_with_collection(other)
    with pytest.raises(AssertionError):
        own.PatternSpec.merge(list(other.values()))
    assert not spec("stride").is_uniform_with_collection(alike | {"draft": full()})


@pytest.mark.parametrize("shard", ["stride", "tokens", "dense"])
def test_a_hit_has_a_page_wherever_one_is_read(shard: str) -> None:
    of, draw = spec(shard), random.Random(4)
    null, there = SimpleNamespace(is_null=True), [SimpleNamespace(is_null=False) for _ in range(20)]
    for _ in range(30):
        gone = {page for page in range(20) if draw.random() < 0.3}
        pool = SimpleNamespace(
            hash_block_size=SIZE,
            null_block=null,
            get_cached_block=lambda page, groups, gone=gone: None if page in gone else [there[page]] * len(groups),
        )
        blocks, tokens = own.PatternManager.find_longest_cache_hit(
            list(range(20)), 310, [0, 3], pool, of, drop_eagle_block=False, alignment_tokens=SIZE
        )
        pages = tokens // SIZE
        assert tokens % SIZE == 0 and pages <= 19 and len(blocks) == 2 and blocks[0] == blocks[1]
        assert pages == of.pages.longest_hit([page not in gone for page in range(20)], 19)
        assert blocks[0] == [there[p] if alive else null for p, alive in enumerate(of.pages.alive(pages))]


def test_specs_are_registered_beside_vllms_own() -> None:
    own.register_spec()
    assert KVCacheSpecRegistry.get_manager_class(spec("stride")) is own.PatternManager
    assert KVCacheSpecRegistry.get_manager_class(full()) is not own.PatternManager


def test_each_kind_of_layers_has_a_backend_that_says_its_spec() -> None:
    kind = backend_of(text("stride"), (1,), AHEAD)
    assert issubclass(kind, PatternBackend) and kind.get_name() == "CUSTOM"
    assert kind.customize_spec(full()) == spec("stride", (1,))
    assert PatternBackend.customize_spec(full()) == full()
    assert kind.full_cls_name() != backend_of(text("stride"), (0,), AHEAD).full_cls_name()
