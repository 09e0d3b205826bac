"""One reader reads one file once, and prints what it took as JSON; needs nothing but that reader and numpy.

Where that fails it prints the class of the exception and the package, the trace on stderr, and ends with 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Read = Callable[[], dict[str, Any]]
PACKAGES = {"earlytom": "earlytom", "torchcodec": "torchcodec", "decord": "decord", "opencv": "cv2"}
PROCESSOR = "llava-onevision-0.5b"
"""Whose processor gets the frames; a name of `earlytom.bench.configurations`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=[*READERS])
    parser.add_argument("--file", required=True)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--near", type=float, default=0.0)
    parser.add_argument("--processor", action="store_true", help="behind reading, time the processor on the frames")
    arguments = parser.parse_args()
    try:
        told = _measured(arguments)
    except Exception as error:
        traceback.print_exc()
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        package = (missing or PACKAGES[arguments.reader]).partition(".")[0]
        print(json.dumps({"exception": type(error).__name__, "package": package}))
        sys.exit(1)
    print(json.dumps(told))


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    read = READERS[arguments.reader](arguments)
    times, result = _timed(read)
    video = result.pop("video", None)
    told = {**times, **result}
    # Only now: what it imports is not to be in memory while a file is read.
    return told | ({"processor": _processor_times(video, arguments.threads)} if arguments.processor else {})


def _timed(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu}, result


def _processor_times(video: Any, threads: int) -> dict[str, float]:
    """What stock's processor takes from a video's frames to a model's inputs, warm."""
    import torch

    from earlytom.bench.configurations import find_configuration
    from earlytom.bench.processors import build_processor, made_up_question
    from earlytom.runtime.preprocessing import preprocess

    if threads:
        torch.set_num_threads(threads)
    found = find_configuration(PROCESSOR)
    processor = build_processor(found.family, found.configure())
    content = [{"type": "video"}, {"type": "text", "text": made_up_question()}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}])
    preprocess(processor, prompt, video)
    return _timed(lambda: preprocess(processor, prompt, video))[0]


def _even(count: int, frames: int) -> list[int]:
    """The frames that this package takes, for the others."""
    import numpy as np

    return [int(i) for i in np.linspace(0, count - 1, min(count, frames), dtype=int)]


def _told(indices: list[int], version: str, decoded: int | None = None, deviations: Any = ()) -> dict[str, Any]:
    return {"indices": indices, "version": version, "decoded": decoded, "deviations": list(deviations)}


def _earlytom(arguments: argparse.Namespace) -> Read:
    import earlytom
    from earlytom.video import Sampling, read_video

    sampling = Sampling(frames=arguments.frames, near=arguments.near)
    read_video(earlytom.sample_videos()[0], Sampling(frames=1))

    def read() -> dict[str, Any]:
        video = read_video(arguments.file, sampling, threads=arguments.threads)
        told = _told(list(video.indices), earlytom.__version__, video.decoded, video.deviations)
        return told | {"video": video}

    return read


def _torchcodec(arguments: argparse.Namespace) -> Read:
    torchcodec = importlib.import_module("torchcodec")
    decoders = importlib.import_module("torchcodec.decoders")

    def read() -> dict[str, Any]:
        decoder = decoders.VideoDecoder(arguments.file, dimension_order="NHWC", num_ffmpeg_threads=arguments.threads)
        indices = _even(decoder.metadata.num_frames, arguments.frames)
        frames = decoder.get_frames_at(indices).data.numpy()
        return _told(indices[: len(frames)], torchcodec.__version__)

    return read


def _decord(arguments: argparse.Namespace) -> Read:
    decord = importlib.import_module("decord")

    def read() -> dict[str, Any]:
        reader = decord.VideoReader(arguments.file, num_threads=arguments.threads)
        indices = _even(len(reader), arguments.frames)
        frames = reader.get_batch(indices).asnumpy()
        return _told(indices[: len(frames)], decord.__version__)

    return read


def _opencv(arguments: argparse.Namespace) -> Read:
    cv2 = importlib.import_module("cv2")

    def read() -> dict[str, Any]:
        options = [cv2.CAP_PROP_N_THREADS, arguments.threads] if arguments.threads else []
        capture = cv2.VideoCapture(arguments.file, cv2.CAP_FFMPEG, options)
        indices = _even(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), arguments.frames)
        taken = 0
        for index in indices:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            good, frame = capture.read()
            taken += good and cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) is not None
        return _told(indices[:taken], cv2.__version__)

    return read


READERS: dict[str, Callable[[argparse.Namespace], Read]] = {
    "earlytom": _earlytom,
    "torchcodec": _torchcodec,
    "decord": _decord,
    "opencv": _opencv,
}

if __name__ == "__main__":
    main()
