"""The way of clips through merge layers and selection, on tensors alone: no model, no engine.

Whoever runs a vision encoder (a model family here, another engine) drives a `SessionBatch` by the visitor protocol, and
gets the kept tokens of each clip from its `ClipSession`.
"""

from earlytom.stages.batch import SessionBatch
from earlytom.stages.cells import CellLayout, CellLayouts
from earlytom.stages.frame_batch import FrameBatch
from earlytom.stages.session import ClipSession, Decide, Pooled
from earlytom.stages.visitor import FrameVisitor, LayerRequests, PassiveVisitor

__all__ = [
    "CellLayout",
    "CellLayouts",
    "ClipSession",
    "Decide",
    "FrameBatch",
    "FrameVisitor",
    "LayerRequests",
    "PassiveVisitor",
    "Pooled",
    "SessionBatch",
]
