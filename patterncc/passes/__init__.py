"""The passes, each a file with one function of its name, in the order in which the pipeline calls them.

    resolve_heads   Pattern → Layouts     selectors and expressions evaluated: one layout a head and layer
    merge_heads     Layouts → Classes     heads with equal layouts share a class
    normalise       Classes → Classes     each layout in its shortest form, so that more of them are equal
    choose_plan     Classes → Plan        the closed form where every class has one, else the table

and what these, the analyses and the commands ask of a single layout:

    closed_form     Layout → ClosedForm   bands of distances with residues; None where arithmetic cannot say it
    lower_table     Layout → Table        the columns of every row, for a given number of rows
    lower_columns   Layout → Table        its inverse: the rows of every column
"""
