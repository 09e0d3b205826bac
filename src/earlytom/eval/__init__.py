"""The benchmark on generated clips: what a compression method costs in answers, with intervals, and what it saves.

`tasks` makes clips and questions from seeds, `answering` asks a model, `runner` does what is not done yet and keeps
records, `summary` turns records into rows, `report` and `plot` show them. How it is measured: ``docs/evaluation.md``.
"""
