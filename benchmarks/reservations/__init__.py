"""How fast reservations are made and expire, beside the textbook's way of making them."""
