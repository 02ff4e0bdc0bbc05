"""The exit codes of every command, but 0 (done, and everything held) and 1 (a property does not hold, or two patterns
differ)."""

WRONG = 2  # the input or the usage is wrong, or the output cannot be written
FAULT = 70  # a fault of patterncc
INTERRUPTED = 130
UNREAD = 141  # nobody reads the output any more
