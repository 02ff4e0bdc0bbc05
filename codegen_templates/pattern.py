"""The pattern as plain data. Every other module of the package takes it from here."""

# --- constants: facts of the pattern, set by patterncc ---
NAME = "template"
BLOCK = 16  # tokens
HEAD_DIM = 32  # of queries and keys
V_HEAD_DIM = 32  # of values and outputs
HEADS = 4
KV_HEADS = 2
LAYERS = 1
CAUSAL = True
SOFTCAP = 0.0  # scores s become SOFTCAP * tanh(s / SOFTCAP); 0: as they are. What chooses kernels looks at it first
SCALE = 0.0  # of scores, where a call gives none; 0: head_dim ** -0.5
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
        "bands": (),
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
        "bands": (),
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
        "bands": (),
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
        "bands": (),
        "closed": (0, ((0, 2, 1, (0,), "j"), (2, None, 4, (3,), "j"))),
    },
)
CLASS_OF = ((0, 1, 2, 3),)  # [layer][head]
MASKS = ()  # file, rows, columns of each: bits row by row, the first column in a byte's highest bit
FACTS = {
    "name": "template",
    "about": "A window of two blocks, and of the rest every fourth, another one for each head.",
    "kv": [None],
}
# --- end constants ---
