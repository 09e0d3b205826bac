"""What compression did: temporal grids, tokens, decisions and times, for people, tests and pictures."""

from earlytom.trace.calls import CallTrace, Trace
from earlytom.trace.records import CellRecord, LanguageReduction, MergeRecord, TokenMergeRecord, VideoTrace
from earlytom.trace.stopwatch import Stopwatch

__all__ = [
    "CallTrace",
    "CellRecord",
    "LanguageReduction",
    "MergeRecord",
    "Stopwatch",
    "TokenMergeRecord",
    "Trace",
    "VideoTrace",
]
