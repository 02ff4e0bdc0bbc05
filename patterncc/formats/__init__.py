"""Patterns in and out: other libraries' configurations and masks → pattern files, and patterns → code for other
libraries.

rules        what one head keeps, as plain values; many heads as the entries of a YAML file
infer        a boolean mask → the smallest rules that equal it         (block_rule: one head, in blocks)
read_*       one file a source: transformers' config.json, DeepSpeed's JSON, head files, masks, mask_mod functions
imported     the result of every reader: YAML text, mask files, notes
importing    SOURCE → the reader for it → a checked pattern file
blocks       a pattern at one length as blocks that are kept whole, in part, or not at all
exporting    these as arrays for FlexAttention, FlashInfer, FlashMask, FlashAttention-4 or torch
             (loaders: the code beside the arrays)
"""
