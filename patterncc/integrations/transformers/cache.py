"""A transformers Cache whose layers hold only the keys that the pattern still needs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from patterncc.errors import UsageError
from patterncc.integrations.sizes import sizes
from patterncc.integrations.transformers.bounds import FIRST, QUERY, STOP
from patterncc.integrations.transformers.registering import package_of

PAYS = 0.8  # of a dense layer's bytes at the longest context: above it the bookkeeping is not worth it


class PatternCache(Cache):
    """The cache to pass as `past_key_values`, for a model whose attn_implementation is a registered pattern.

    `length`: the context for which it is decided which layers keep little enough to be worth it (default: the model's
    max_position_embeddings); other layers are plain DynamicLayers, and those that hold no keys of tokens, or a state
    beside them (linear attention, convolutions), the library's own. `bytes` and `allocated_bytes` say what is held.
    """

    def __init__(self, model: nn.Module, *, length: int | None = None) -> None:
        config: Any = model.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        name = config._attn_implementation
        package = package_of(name)
        if package is None:
            raise UsageError(
                f"the model's attn_implementation is {name!r}, which is no registered pattern",
                "model.set_attn_implementation(register(PATTERN)) first",
            )
        theirs = _library_layers(config)
        most = length or int(getattr(config, "max_position_embeddings", None) or 4096)
        layers: list[Any] = [  # CacheLayerMixin, in a list whose type differs from version to version
            theirs[layer]
            if layer in theirs
            else PatternLayer(package, layer, Served(config))
            if pays(package, layer, most)
            else DynamicLayer()
            for layer in range(package.PATTERN["layers"])
        ]
        super().__init__(layers=layers)

    @property
    def bytes(self) -> int:
        """Of the keys and values that later tokens can still read, in all layers."""
        return sum(_held(layer, "bytes") for layer in self.layers)

    @property
    def allocated_bytes(self) -> int:
        """Of the memory that is taken for keys and values, in all layers."""
        return sum(_held(layer, "allocated_bytes") for layer in self.layers)


class Served:
    """Whether a model still has the attention that it had when a cache was made for it."""

    def __init__(self, config: Any) -> None:
        self.config, self.name = config, config._attn_implementation

    def __call__(self) -> bool:
        return self.config._attn_implementation == self.name

    def __deepcopy__(self, memo: object) -> Served:
        return self  # a copy of a cache serves the same model

    def __reduce__(self) -> tuple[Any, ...]:
        raise UsageError(
            "a PatternCache serves the model that it was made for, and cannot be pickled: whoever loads it would have "
            "another one",
            "copy.deepcopy(cache) copies it within a process; between processes send the tokens, or a DynamicCache",
        )


STATES = ("linear_attention", "mamba", "conv", "hybrid", "hybrid_sliding")  # kinds of layers that keep a state


def _library_layers(config: Any) -> dict[int, Any]:
    """The layers of the library's own cache, by number, that hold something else than keys and values of tokens. Raises
    UsageError for a version whose caches of such models are classes of the models."""
    made = dict(enumerate(DynamicCache(config=config).layers))
    theirs = {n: layer for n, layer in made.items() if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)}
    for layer, kind in enumerate(getattr(config, "layer_types", None) or ()):
        if kind in STATES and layer not in theirs:
            raise UsageError(
                f"layer {layer} of the model is {kind}, whose state this version of transformers keeps in a cache of "
                "the model's own: a PatternCache does not hold it",
                "leave out past_key_values",
            )
    return theirs


def _held(layer: Any, what: str) -> int:
    if isinstance(layer, PatternLayer):
        return getattr(layer.cache, what) if layer.cache is not None else 0
    held = (getattr(layer, "keys", None), getattr(layer, "values", None))  # a layer may have only a state
    return sum(x.numel() * x.element_size() for x in held if x is not None)


def pays(package: ModuleType, layer: int, length: int) -> bool:
    """Whether the package's cache of a layer is much smaller than a dense one after `length` tokens."""
    try:
        probe = package.KVCache(1, layer=layer, device="meta", max_length=length)
    except (TypeError, ValueError, RuntimeError):  # a pattern that takes up again what it dropped
        return False
    size = sizes(package, layer)
    dense = size["kv_heads"] * (size["head_dim"] + size["v_head_dim"]) * 4 * length  # float32, as the probe's
    return probe.allocated_bytes < PAYS * dense


class _NoGradient(torch.autograd.Function):
    """`out` as it is, in a graph that says at its first backward pass why it cannot go on."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, q: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise UsageError("PatternCache keeps no gradients", "train without a cache: model(..., use_cache=False)")


class PatternLayer(CacheLayerMixin):
    """One layer: `update` keeps nothing itself, it hands the new keys on to `attend`, which stores and attends."""

    is_sliding = False
    is_compileable = False
    is_croppable = False

    def __init__(self, package: ModuleType, layer: int, in_use: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self.package, self.layer, self.cache, self.length = package, layer, None, 0
        self.in_use = in_use  # whether the model still has the pattern for which this cache was made
        self.waiting = False  # keys were handed on, and nobody took them

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The new keys and values themselves; the attention function finds this layer by a mark on the keys. Raises
        UsageError for a model that caches anything else, such as compressed latents: their mark would be lost."""
        if not self.in_use() or self.waiting:
            raise UsageError(
                "a PatternCache serves only a model whose attention is the pattern that it was made for",
                "set the attention implementation first, then make PatternCache(model)",
            )
        of, widths = sizes(self.package, self.layer), (key_states.shape[-1], value_states.shape[-1])
        if widths != (of["head_dim"], of["v_head_dim"]):
            name = self.package.PATTERN["name"]
            raise UsageError(
                f"the model caches {widths[0]} and {widths[1]} numbers a token, the pattern {name} has keys of "
                f"{of['head_dim']} and values of {of['v_head_dim']}: PatternCache holds nothing else",
                "pass past_key_values=DynamicCache()",
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.waiting = True
        key_states.patterncc_layer = self  # type: ignore[attr-defined]
        self.length += key_states.shape[2]
        return key_states, value_states

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None, *, layer: int, scale: float | None,
        head_offset: int, **options: Any,
    ) -> Tensor:  # fmt: skip
        """Attention of the newest tokens over what is held and themselves, like q; they are stored. A backward pass
        through it raises UsageError: what is stored has no gradients."""
        if not self.waiting:
            raise UsageError(
                f"layer {layer} attends more than once to keys that it caches once: a PatternCache takes them and "
                "answers in one step",
                "pass past_key_values=DynamicCache()",
            )
        return self._attended(q, k, v, bounds, layer=layer, scale=scale, head_offset=head_offset, **options)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None, *, layer: int, scale: float | None,
        head_offset: int, **options: Any,
    ) -> Tensor:  # fmt: skip
        """`attend` of what waits; a tensor that refuses a backward pass where one could follow."""
        self.waiting = False
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            with torch.no_grad():
                out = self._attended(q, k, v, bounds, layer=layer, scale=scale, head_offset=head_offset, **options)
            return _NoGradient.apply(out, q)
        if self.cache is None:
            self.cache = self.package.KVCache(
                q.shape[0], layer=layer, dtype=k.dtype, device=k.device, head_offset=head_offset, heads=q.shape[1]
            )
        if bounds is None:
            return self.cache.step(q, k, v, scale=scale, **options)
        rows, n = bounds[:, 0, 0].tolist(), q.shape[2]
        begins = [min(max(row[FIRST] - row[QUERY], 0), n) for row in rows]  # padding among the new tokens, on the left
        counts = [max(min(row[STOP] - row[QUERY], n) - begin, 0) for row, begin in zip(rows, begins, strict=True)]
        if not any(begins):
            return self.cache.step(q, k, v, scale=scale, lengths=counts, **options)
        moved = [_shifted(x, begins) for x in (q, k, v)]  # the cache takes sequences that begin at once
        out = self.cache.step(*moved, scale=scale, lengths=counts, **options)
        return _shifted(out, [-begin for begin in begins])

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Keys seen with the new ones, and the first of them: as if all were held."""
        length = query_length if isinstance(query_length, int) else len(query_length)
        return self.length + length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers 4.57

    def reset(self) -> None:
        self.cache, self.length, self.waiting = None, 0, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the sequences of the chosen beams."""
        self._fork(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        self._fork(torch.arange(self.cache.batch)[indices.cpu()].tolist() if self.cache is not None else [])

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.cache is not None:
            self._fork([n for n in range(self.cache.batch) for _ in range(repeats)])

    def _fork(self, index: list[int]) -> None:
        if self.cache is not None:
            self.cache = self.cache.fork(index)

    def crop(self, *_: Any) -> None:
        raise UsageError(
            "PatternCache cannot go back: keys that a pattern dropped are gone",
            "assisted decoding and prompt lookup need a DynamicCache",
        )


def _shifted(x: Tensor, by: list[int]) -> Tensor:
    """Each row of x [batch, heads, n, head_dim] moved to the front by so many places, round the end."""
    places = torch.arange(x.shape[2]) + torch.tensor(by)[:, None]
    index = (places % x.shape[2])[:, None, :, None].to(x.device)
    return x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))
