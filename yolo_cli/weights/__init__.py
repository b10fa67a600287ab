"""Other people's weight files, read without running anything in them."""
