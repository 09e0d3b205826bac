"""The values that travel between methods, sessions and model families. Nothing here knows a model or a method."""

from __future__ import annotations

from typing import Literal

from earlytom.types.decisions import Decision, KeptTokens, PrefillInputs
from earlytom.types.plans import EncoderPlan, EncoderShape, FrameGrid, LanguagePlan
from earlytom.types.states import CellStates, CellWindows, FrameStates, LanguageStates, TokenStates, VisualTokens

__all__ = [
    "CellStates",
    "CellWindows",
    "Decision",
    "EncoderPlan",
    "EncoderShape",
    "FrameGrid",
    "FrameStates",
    "KeptTokens",
    "LanguagePlan",
    "LanguageStates",
    "PrefillInputs",
    "Resource",
    "Stage",
    "TokenStates",
    "VisualTokens",
]

Stage = Literal["encoder", "tokens", "llm"]
"""Where a method acts: inside the vision encoder, on the tokens before the language model, inside that."""

Resource = Literal["frame grid", "whole grid", "frame similarity", "received attention", "keys"]
"""What a method that selects tokens may depend on, and another method's encoder stage may do away with. On a ``frame
grid`` all temporal grids have equally many tokens; a ``whole grid`` has all of them, the same places in each."""
