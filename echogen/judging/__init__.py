"""The judge: networks that look at finished samples, and what they find there."""
