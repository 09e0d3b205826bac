"""LLaVA-Video, for which transformers has no class: model, processor, host, and its published layout.

Nothing is imported here, so that looking at one part does not load the others. ``model`` and ``processor`` are what
users hold, ``layout`` says what becomes of a frame's features, ``host`` is the family's; ``published`` knows the
layout that checkpoints are published in, and ``conversion`` reads it and writes it anew.
"""
