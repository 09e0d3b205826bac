"""Arithmetic of prompts, positions and packed sequences, free of any model or engine."""
