"""The pattern as plain data. Every other module of the package takes it from here."""

# --- constants: facts of the pattern, set by patterncc ---
NAME = "bigbird"
BLOCK = 64  # tokens
HEAD_DIM = 64
HEADS = 12
KV_HEADS = 12
LAYERS = 12
CAUSAL = False
SOFTCAP = 0.0  # scores s become SOFTCAP * tanh(s / SOFTCAP); 0: as they are. What chooses kernels looks at it first
NEEDS_SINKS = False  # whether callers must pass the logits of sinks
FORM = "table"  # the index map that kernels use: arithmetic ("closed") or a table
ROWS_PER_TILE_FREE = False  # whether a kernel's query tile may span several rows
# The rules of each class. A term: bounds d_from, d_to, j_from, j_to, i_from, i_to; every, offset, width, anchor.
CLASSES = (
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 0",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 0),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 1",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 1),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 2",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 2),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 3",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 3),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 4",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 4),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 5",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 5),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 6",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 6),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 7",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 7),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 8",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 8),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 9",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 9),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 10",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 10),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
    {
        "text": "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 11",
        "terms": (
            (None, None, None, 2, None, None, 1, 0, 1, "j"),
            (None, None, None, None, 0, 2, 1, 0, 1, "j"),
            (-1, 2, None, None, None, None, 1, 0, 1, "j"),
        ),
        "window": None,
        "sink": 0,
        "random": (3, 11),
        "mask": None,
        "chunk": 0,
        "closed": None,
    },
)
CLASS_OF = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
)  # [layer][head]
MASKS = ()  # file, rows, columns of each: bits row by row, the first column in a byte's highest bit
FACTS = {
    "name": "bigbird",
    "about": "An encoder with a window, two global blocks and three random blocks a row.",
    "heads": 12,
    "kv_heads": 12,
    "head_dim": 64,
    "layers": 12,
    "block": 64,
    "causal": False,
    "softcap": None,
    "sinks": None,
    "promises": {"rows": "nonempty", "reach": 2},
    "classes": [
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 0",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 1",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 2",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 3",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 4",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 5",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 6",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 7",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 8",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 9",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 10",
        "j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 11",
    ],
    "kv": [None, None, None, None, None, None, None, None, None, None, None, None],
}
# --- end constants ---
