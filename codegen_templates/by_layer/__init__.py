"""The templates of what stands above the packages of a pattern's layers, where layers differ in heads or widths."""
