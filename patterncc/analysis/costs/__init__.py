"""What a pattern costs, counted: kept pairs, live keys, the load of ranks and what they exchange."""
