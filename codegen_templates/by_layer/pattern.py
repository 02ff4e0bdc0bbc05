"""The pattern as plain data, and which package serves which layer. Every other module above the parts takes it from
here."""

# --- constants: facts of the pattern, set by patterncc ---
PARTS = ("..package",)  # the packages, one for each shape, by their places from this folder
PART_OF = (0,)  # [layer] -> part
FACTS = {
    "name": "template",
    "about": "A window of two blocks, and of the rest every fourth, another one for each head.",
    "kv": [None],
}
# --- end constants ---
