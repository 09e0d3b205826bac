"""Pictures of what compression does. Needs matplotlib: ``pip install earlytom[eval]``."""
