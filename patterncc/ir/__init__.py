"""The intermediate representation: frozen, printed and read back, checked between passes.

In the order of lowering, and in brackets what it is made with:

    layout   which blocks a head keeps, as rules                            (terms, filled, tokens: what rules mean)
    classes  the layouts of all heads, and each once for the heads that share it
    closed   the index map as arithmetic                                    (draw: what a random part keeps)
    table    the index map as arrays                                        (runs, bitmap: how tables are filled)
    plan     the classes, their closed forms, and the form that kernels take
    check    what must hold of each
"""
