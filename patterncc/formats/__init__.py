"""Patterns in and out: other libraries' configurations and masks → pattern files, and patterns → code for other
libraries.

rules        what one head keeps, as plain values; many heads as the entries of a YAML file
infer        a boolean mask → the smallest rules that equal it
read_*       one file a source: transformers' config.json, DeepSpeed's JSON, head files, masks, mask_mod functions
importing    SOURCE → YAML text and a report
write_*      one file a target: FlexAttention, FlashInfer, FlashMask, FlashAttention-4, torch
"""
