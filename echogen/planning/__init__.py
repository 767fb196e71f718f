"""Which samples will be made, with which moves: decided before a pixel is painted."""
