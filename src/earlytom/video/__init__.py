"""Reading video: local files, bytes, file objects, frame arrays and lists of images, all to RGB uint8 frames.

Only ``numpy`` is imported here; PyAV, torchcodec, torch and Pillow are loaded when a source needs them.
"""

from earlytom.video.limits import Limits
from earlytom.video.reader import Decoder, Source, read_video
from earlytom.video.sampling import Sampling, Spacing
from earlytom.video.types import Video

__all__ = ["Decoder", "Limits", "Sampling", "Source", "Spacing", "Video", "read_video"]
