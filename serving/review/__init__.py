"""How far a prediction can be trusted. It observes predictions and takes no part in making them."""
