"""A tiny test model that really answers: generated scenes, their questions, the checkpoint and its training recipe.

Everything in this package is generated from seeds. The shipped checkpoint is a stock
``LlavaOnevisionForConditionalGeneration`` of four million parameters; it exists so that the effect of video token
compression on the answers of a video language model can be measured in seconds on a processor without a GPU.
"""
