"""Help in choosing: which patterns fit a model and a budget, and what fits on a card.

shapes     a model's shape, from options or from a transformers config.json, and the bytes of its weights
family     the S2 patterns that are considered: windows, strides, offsets, dense heads and layers
suggest    the family → proved, priced, and of them those that nothing beats
rates      measured kernel rates, with which seconds are estimated
requests   how many requests fit into a card's memory
"""
