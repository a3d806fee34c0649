"""What a caller is answered: passed on as it came, and read for its usage on the way."""
