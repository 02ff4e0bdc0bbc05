"""One module an engine, imported only when asked for; patterncc itself needs none of them."""
