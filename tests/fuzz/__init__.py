"""Inputs that nobody vouches for, made from seeds and tried in children: see `fuzz.__main__`."""
