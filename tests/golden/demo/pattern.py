"""The pattern as plain data. Every other module of the package takes it from here."""

# --- constants: facts of the pattern, set by patterncc ---
NAME = "demo"
BLOCK = 16  # tokens
HEAD_DIM = 64
HEADS = 4
KV_HEADS = 2
LAYERS = 2
CAUSAL = True
SOFTCAP = 0.0  # scores s become SOFTCAP * tanh(s / SOFTCAP); 0: as they are. What chooses kernels looks at it first
NEEDS_SINKS = False  # whether callers must pass the logits of sinks
FORM = "closed"  # the index map that kernels use: arithmetic ("closed") or a table
ROWS_PER_TILE_FREE = True  # whether a kernel's query tile may span several rows
# The rules of each class. A term: bounds d_from, d_to, j_from, j_to, i_from, i_to; every, offset, width, anchor.
CLASSES = (
    {
        "text": "d<2 | j%4==0",
        "terms": ((None, 2, None, None, None, None, 1, 0, 1, "j"), (None, None, None, None, None, None, 4, 0, 1, "j")),
        "window": None,
        "sink": 0,
        "random": None,
        "mask": None,
        "chunk": 0,
        "closed": (0, ((0, 2, 1, (0,), "j"), (2, None, 4, (0,), "j"))),
    },
    {
        "text": "d<2 | j%4==1",
        "terms": ((None, 2, None, None, None, None, 1, 0, 1, "j"), (None, None, None, None, None, None, 4, 1, 1, "j")),
        "window": None,
        "sink": 0,
        "random": None,
        "mask": None,
        "chunk": 0,
        "closed": (0, ((0, 2, 1, (0,), "j"), (2, None, 4, (1,), "j"))),
    },
    {
        "text": "d<2 | j%4==2",
        "terms": ((None, 2, None, None, None, None, 1, 0, 1, "j"), (None, None, None, None, None, None, 4, 2, 1, "j")),
        "window": None,
        "sink": 0,
        "random": None,
        "mask": None,
        "chunk": 0,
        "closed": (0, ((0, 2, 1, (0,), "j"), (2, None, 4, (2,), "j"))),
    },
    {
        "text": "d<2 | j%4==3",
        "terms": ((None, 2, None, None, None, None, 1, 0, 1, "j"), (None, None, None, None, None, None, 4, 3, 1, "j")),
        "window": None,
        "sink": 0,
        "random": None,
        "mask": None,
        "chunk": 0,
        "closed": (0, ((0, 2, 1, (0,), "j"), (2, None, 4, (3,), "j"))),
    },
)
CLASS_OF = ((0, 1, 2, 3), (0, 1, 2, 3))  # [layer][head]
MASKS = ()  # file, rows, columns of each: bits row by row, the first column in a byte's highest bit
FACTS = {
    "name": "demo",
    "about": "Each of four heads keeps its last two blocks and every fourth block before; together they keep everything.",
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "layers": 2,
    "block": 16,
    "causal": True,
    "softcap": None,
    "sinks": None,
    "promises": {"coverage": "layer", "rows": "nonempty", "kv": "monotone"},
    "classes": ["d<2 | j%4==0", "d<2 | j%4==1", "d<2 | j%4==2", "d<2 | j%4==3"],
    "kv": [None, None],
}
# --- end constants ---
