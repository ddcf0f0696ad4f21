"""How objects change: the table of states, operations that retries join, and the undo stack."""
