"""One reader reads one file once, and prints what it took as JSON; needs nothing but that reader and numpy."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Read = Callable[[], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=[*READERS])
    parser.add_argument("--file", required=True)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--near", type=float, default=0.0)
    arguments = parser.parse_args()
    read = READERS[arguments.reader](arguments)
    cpu, wall = time.process_time(), time.perf_counter()
    result = read()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, **result}))


def _even(count: int, frames: int) -> list[int]:
    """The frames that this package takes, for the others."""
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
        return _told(list(video.indices), earlytom.__version__, video.decoded, video.deviations)

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
