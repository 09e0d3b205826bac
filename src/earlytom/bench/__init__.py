"""Measuring: taking turns, times, memory and operations of named subjects, at true sizes, without weights.

Nothing heavy is imported here: `earlytom.bench.rounds` serves the command line and the evaluation too.
"""
