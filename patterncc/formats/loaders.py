"""The code that is written beside the arrays: one file a target, which needs numpy, torch and the target alone."""

_HEAD = '''"""Pattern PATTERN_NAME at PATTERN_LENGTH tokens, for {library}."""

from pathlib import Path

import numpy as np
import torch

_ARRAYS = np.load(Path(__file__).with_suffix(".npz"))


def _tensor(name, device):
    return torch.from_numpy(_ARRAYS[name]).to(device)

'''

_FLEX = '''
def block_mask(layer=0, device="cpu"):
    """The BlockMask of a layer, for flex_attention(q, k, v, block_mask=..., enable_gqa=...)."""
    from torch.nn.attention.flex_attention import BlockMask

    classes = _tensor("classes", device)[layer].long()
    states, parts = _tensor("states", device), _tensor("parts", device)
    size = parts.shape[-1]

    def mask_mod(b, h, q_idx, kv_idx):
        state = states[classes[h], q_idx // size, kv_idx // size]
        part = parts[(state - 2).clamp(min=0), q_idx % size, kv_idx % size]
        return (state == 1) | ((state > 1) & part)

    lists = [
        _tensor(name, device)[classes][None] for name in ("part_count", "part_columns", "whole_count", "whole_columns")
    ]
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=128, mask_mod=mask_mod, seq_lengths=(LENGTH, LENGTH))


LENGTH = PATTERN_TOKENS
'''

_TORCH = '''
def attn_mask(layer=0, device="cpu"):
    """The mask [1, heads, length, length] of a layer, for scaled_dot_product_attention(q, k, v, attn_mask=...)."""
    return _tensor("masks", device)[_tensor("classes", device)[layer].long()][None]
'''

_FLASHINFER = '''
def plans(layer=0, device="cuda"):
    """For each kind of KV head of a layer: (its KV heads, indptr, indices, block, mask [nnz, block, block]).

    Give each to BlockSparseAttentionWrapper.plan(indptr, indices, M, N, block, block, ..., mask=mask).
    """
    classes = _ARRAYS["classes"][layer]
    for number in np.unique(classes):
        heads = np.flatnonzero(classes == number).tolist()
        arrays = [_tensor(f"{name}_{number}", device) for name in ("pointers", "columns", "masks")]
        yield heads, arrays[0], arrays[1], int(_ARRAYS["block"]), arrays[2]
'''

_FLASHMASK = '''
def startend_row_indices(layer=0, device="cpu"):
    """int32 [1, kv_heads, length, 2 or 4], for flashmask_attention(q, k, v, ..., causal=CAUSAL)."""
    return _tensor("bounds", device)[_tensor("classes", device)[layer].long()][None]


CAUSAL = bool(_ARRAYS["causal"])
'''

_FA4 = '''
def block_sparse_tensors(layer=0, device="cuda"):
    """BlockSparseTensorsTorch of a layer in blocks of 128 x 128; call the attention with causal=CAUSAL."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    return BlockSparseTensorsTorch(**lists(layer, device), block_size=(128, 128))


def lists(layer=0, device="cuda"):
    """The four lists by their names there, int32 [1, heads, rows] and [1, heads, rows, columns]."""
    classes = _tensor("classes", device)[layer].long()
    names = {
        "mask_block_cnt": "part_count",
        "mask_block_idx": "part_columns",
        "full_block_cnt": "whole_count",
        "full_block_idx": "whole_columns",
    }
    return {theirs: _tensor(ours, device)[classes][None] for theirs, ours in names.items()}


CAUSAL = bool(_ARRAYS["causal"])
'''

LOADERS = {
    "flex": _HEAD.format(library="FlexAttention") + _FLEX,
    "torch": _HEAD.format(library="torch's scaled_dot_product_attention") + _TORCH,
    "flashinfer": _HEAD.format(library="FlashInfer's block-sparse attention") + _FLASHINFER,
    "flashmask": _HEAD.format(library="FlashMask") + _FLASHMASK,
    "fa4": _HEAD.format(library="FlashAttention-4's block sparsity") + _FA4,
}
