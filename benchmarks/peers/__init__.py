"""Other programs that run the same detector, to compare with."""
