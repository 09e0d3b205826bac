"""Opening a video with libav, which gets bytes and is allowed neither other files nor the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from earlytom.errors import VideoError
from earlytom.video._integrity import moov_missing, tells_length
from earlytom.video._source import Encoded

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

__all__ = ["open_stream", "packets", "plain"]

# Demuxers that read one file and nothing but that file: no playlists, no descriptions of sessions, no sequences of
# images, no scripts, no devices. The last line can hold no video and is there to be told as sound.
_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,mxf,dv,rm,nut,wtv,ivf,yuv4mpegpipe,jpegxl_anim,"
    "mpegvideo,m4v,h263,h264,hevc,vvc,av1,obu,vc1,mjpeg,mpjpeg,"
    "png_pipe,jpeg_pipe,jpegxl_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,"
    "aac,flac,mp3,wav"
)
# No protocol at all: whatever a file asks to be opened, it does not get.
_PROTOCOLS = ""

# libav decodes a picture to open a file, whatever its size. Not with these, which make much of a few bytes, and where
# nothing is learnt from it: containers tell the size, and where there is none, Pillow does.
_NOT_TO_OPEN = frozenset(
    {"apng", "bmp", "ffv1", "gif", "jpeg2000", "jpegls", "jpegxl", "libjxl", "libjxl_anim", "libopenjpeg", "mjpeg"}
    | {"mjpegb", "pgm", "png", "ppm", "qoi", "qtrle", "rawvideo", "targa", "tiff", "webp", "zlib", "zmbv"}
)
# Threads share the slices of these out and overlook a first one that is missing. Pictures that lack their last row of
# macroblocks pass as whole with an odd number of rows, and show there what an earlier one left in memory, unless fewer
# rows than none may be left out.
_SLICED = frozenset({"mpeg1video", "mpeg2video"})
_EVERY_ROW = {"skip_bottom": "-1"}

_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
# How text starts that names other files.
_POINTERS = (
    (
        re.compile(rb"#EXTM3U|ffconcat version|\[playlist\]|(<\?xml[^>]*>\s*)?<(MPD|smil|asx)\b", re.IGNORECASE),
        "a playlist",
    ),
    (re.compile(rb"v=0\r?\n"), "a session description"),
)


@contextmanager
def open_stream(source: Encoded, threads: int, *, strict: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the video stream of a source for the length of the block.

    Args:
        source: encoded video.
        threads: decoder threads, 0 for as many as there are cores.
        strict: tell exactly which frames are damaged, at the price of speed.

    Yields:
        Container and stream, at the start.

    Raises:
        VideoError: not a video file, no video in it, no decoder for it, or pictures above the limit.
    """
    # With several threads, libav gives frames out before it knows that they are damaged, and so by chance unmarked.
    strict = strict or not tells_length(source.file)
    with _open_container(source) as container:
        stream = _video_stream(source, container)
        stream.thread_type = "AUTO"
        context = stream.codec_context
        context.thread_count = 1 if strict or context.name in _SLICED else threads
        yield container, stream


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """All packets of a stream from the current position on, and the empty one that flushes its decoder."""
    try:
        yield from container.demux(stream)
    except IndexError:
        # Where streams turn up after opening (transport streams), PyAV looks for them when all packets have been given.
        return


def plain(error: Exception) -> str:
    """First line of what an error says."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _open_container(source: Encoded) -> InputContainer:
    source.file.seek(0)
    head = source.file.read(4096)
    # Before libav looks: releases differ in what they take for a playlist, and torchcodec brings its own.
    if kind := _pointer(head):
        raise VideoError(f"{source.name}: is {kind}, not a video file")
    source.file.seek(0)
    # Not `options`, which go to the streams too: PyAV then writes past its memory where streams turn up late (FLV).
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS, "codec_whitelist": _probing_codecs()}
    try:
        return av.open(source.file, mode="r", container_options=options)
    except (FFmpegError, OSError, ValueError) as error:
        if moov_missing(source.file):
            raise VideoError(f"{source.name}: truncated or unfinished: the index (moov box) is missing") from error
        if isinstance(error, EOFError):
            raise VideoError(f"{source.name}: truncated or without frames: ends before the first") from error
        raise VideoError(f"{source.name}: not a video file, or corrupt: {_text(head) or plain(error)}") from error


@cache
def _probing_codecs() -> str:
    return ",".join(sorted(av.codecs_available - _NOT_TO_OPEN))


def _pointer(head: bytes) -> str | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for pattern, kind in _POINTERS if pattern.match(start)), None)


def _text(head: bytes) -> str | None:
    return None if _BINARY.search(head) else "it holds text"


def _picture_limit(source: Encoded) -> dict[str, str]:
    """libav's own limit, which it keeps before it allocates a picture."""
    limit = source.limits.max_pixels
    # libav counts with padding. The exact limit is checked here; this one is for sizes that only a decoder learns.
    return {} if limit is None else {"max_pixels": str(min(limit + (1 << 22), (1 << 31) - 1))}


def _video_stream(source: Encoded, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        has_audio = "only audio" if container.streams.audio else "no video stream"
        cover = " and a cover picture" if stream is not None else ""
        raise VideoError(f"{source.name}: has {has_audio}{cover}, no video to read")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise VideoError(f"{source.name}: no decoder for its video stream in this build of PyAV")
    context = stream.codec_context
    width, height = (context.width, context.height) if context.width else _declared_size(source)
    source.limits.check_picture(source.name, width, height)
    every_row = _EVERY_ROW if context.name in _SLICED else {}
    context.options = {**context.options, **_picture_limit(source), **every_row}
    return stream


def _declared_size(source: Encoded) -> tuple[int, int]:
    """Width and height of pictures that libav did not open, for their size perhaps; 0, 0 where nobody knows."""
    from earlytom.video._pictures import header_size

    position = source.file.tell()
    try:
        return header_size(source.file)
    finally:
        source.file.seek(position)
