"""Checkpoint folders that nobody vouches for: files, settings and prompts are checked before they are believed."""
