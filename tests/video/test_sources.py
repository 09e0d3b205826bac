"""What a source may be and what it may do: nothing is fetched, nothing else is opened, names are names."""

from __future__ import annotations

import base64
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from conftest import shared
from earlytom.errors import VideoError
from earlytom.video import Limits, Sampling, Video, read_video

from .clips import make_clip, make_sound, number_of, numbers_of, picture
from .conftest import Factory


def message(source: Any, **arguments: Any) -> str:
    with pytest.raises(VideoError) as caught:
        read_video(source, **arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


class Named(io.BytesIO):
    """An upload: bytes under a name that a client chose."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


# --- nothing is fetched or opened ---------------------------------------------------------------------------------


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """Address of a local HTTP server, and the requests that it has got."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def pointers(address: str) -> dict[str, tuple[str, str]]:
    """Files that name others: file name -> (content, what the error calls it)."""
    segments = f"#EXTINF:2,\n{address}/part.ts\n#EXT-X-ENDLIST\n"
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
    dash = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        f"<Period><AdaptationSet mimeType=\"video/mp4\"><Representation id='1' bandwidth='1'><BaseURL>{address}/a.mp4"
        "</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "media.m3u8": (head + segments, "a playlist"),
        "variant.m3u8": (f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{address}/media.m3u8\n", "a playlist"),
        "key.m3u8": (f'{head}#EXT-X-KEY:METHOD=AES-128,URI="{address}/key"\n{segments}', "a playlist"),
        "map.m3u8": (f'{head}#EXT-X-MAP:URI="{address}/init.mp4"\n{segments}', "a playlist"),
        "late.m3u8": (f"\ufeff\n  {head}{segments}", "a playlist"),
        "dash.mpd": (dash, "a playlist"),
        "list.ffconcat": (f"ffconcat version 1.0\nfile {address}/a.mp4\n", "a playlist"),
        "redirect.txt": (f"[Reference]\nRef1={address}/a.mp4\n", "not a video file"),
    }


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "string": str,
    "bytes": lambda path: path.read_bytes(),
    "named object": lambda path: Named(path.read_bytes(), path.name),
    "mp4 by name": lambda path: Named(path.read_bytes(), "holiday.mp4"),
    "address by name": lambda path: Named(path.read_bytes(), "http://127.0.0.1/x.m3u8"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_files_that_name_others_make_no_request(requests: tuple[str, list[str]], tmp_path: Path, kind: str) -> None:
    address, seen = requests
    for name, (text, called) in pointers(address).items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert called in message(SOURCES[kind](path)), name
    assert seen == []


@pytest.mark.parametrize("kind", SOURCES)
def test_an_open_file_is_no_more_than_its_bytes(requests: tuple[str, list[str]], tmp_path: Path, kind: str) -> None:
    address, seen = requests
    # A playlist behind the start of another format, and formats that libav takes on the word of a name.
    for name, data in (
        ("a.ts", pointers(address)["media.m3u8"][0].encode() + b"\n".ljust(188, b"#") + (b"G" + bytes(187)) * 3000),
        ("a.m3u8", b"RIFF\x10\0\0\0AVI " + pointers(address)["media.m3u8"][0].encode()),
        ("a.sdp", b"\0\0\0\x18ftypmp42" + b"\0" * 40),
        ("a.txt", b"words\n" * 500),
        ("a.yuv", bytes(300_000)),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        message(SOURCES[kind](path))
    assert seen == []


CHILD = """
import io, sys
from earlytom.errors import VideoError
from earlytom.video import read_video
for source in (sys.argv[1], open(sys.argv[1], "rb"), open(sys.argv[1], "rb").read()):
    try:
        read_video(source)
    except VideoError as error:
        print(str(error).rpartition(": ")[2])
"""


@pytest.mark.parametrize("name", ["waits.m3u8", "listens.sdp", "waits.ffconcat", "waits.mpd"])
def test_nothing_waits_for_a_pipe_or_a_socket(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "part.ts")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] // 2 * 2
    texts = {
        "waits.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\npart.ts\n#EXT-X-ENDLIST\n",
        "listens.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "waits.ffconcat": "ffconcat version 1.0\nfile part.ts\n",
        "waits.mpd": pointers("file://" + str(tmp_path))["dash.mpd"][0].replace("a.mp4", "part.ts"),
    }
    (tmp_path / name).write_text(texts[name])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    kind = "a session description" if name == "listens.sdp" else "a playlist"
    assert done.stdout.splitlines() == [f"is {kind}, not a video file"] * 3


FORMATS: dict[str, dict[str, Any]] = {
    "mov": {}, "flv": {"codec": "flv"}, "asf": {"codec": "mpeg4"}, "gif": {"codec": "gif", "pixels": "rgb8"},
    "apng": {"codec": "apng", "pixels": "rgb24"}, "mxf": {"codec": "mpeg2video", "rate": 25}, "nut": {},
    "mpg": {"codec": "mpeg2video", "rate": 25}, "m2v": {"codec": "mpeg2video", "rate": 25}, "m4v": {"codec": "mpeg4"},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, "mjpeg": {"codec": "mjpeg"},
    "ivf": {"codec": "libvpx", "options": {"deadline": "realtime"}}, "3gp": {"codec": "mpeg4"},
    "y4m": {"codec": "wrapped_avframe", "format": "yuv4mpegpipe"}, "ogv": {"codec": "libvpx", "format": "ogg"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_usual_formats_are_known_by_their_bytes(tmp_path: Path, suffix: str) -> None:
    arguments = {"count": 12, **FORMATS[suffix]}
    if arguments.get("codec") == "mjpeg":
        arguments["pixels"] = "yuvj420p"
    path = make_clip(tmp_path / f"clip.{suffix}", **arguments)
    for source in (path, path.read_bytes(), Named(path.read_bytes(), "upload.m3u8")):
        assert numbers_of(read_video(source, Sampling(frames=None)).frames) == list(range(12))


def test_sound_is_told_as_sound(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "sound.aac")
    assert message(path.read_bytes()) == "<bytes>: has only audio, no video to read"


# --- names are names ----------------------------------------------------------------------------------------------


def test_a_pattern_is_the_name_of_one_file(tmp_path: Path) -> None:
    for name, number in (("pat%03d.png", 9), ("pat000.png", 1), ("pat001.png", 2), ("pat*.png", 4), ("%d.png", 5)):
        Image.fromarray(picture(number, 96, 64)).save(tmp_path / name)
        video = read_video(tmp_path / name)
        assert (video.source_frames, number_of(video.frames[0])) == (1, number)
    (tmp_path / "pat%03d.png").unlink()
    assert message(tmp_path / "pat%03d.png").endswith("no such file")


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "pipe:0", "fd:", "tee:a.mp4"])
def test_a_protocol_is_the_name_of_a_file(
    clip: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(clip("no_b").read_bytes())
    assert message(name).endswith("no such file")
    (tmp_path / name).write_bytes(clip("no_b").read_bytes())
    assert numbers_of(read_video(name, Sampling(frames=2)).frames) == [0, 59]


def test_long_and_odd_names(clip: Factory, tmp_path: Path) -> None:
    for name in (
        "x" * 400_000,
        "x" * 400_000 + ".mp4",
        "a/" * 100_000,
        "http://h/" + "x" * 400_000,
        "s" * 400_000 + "://h/a.mp4",
        "\n" * 300,
    ):
        message(name)
        if "http" not in name:
            message(Path(name))
    message([("x" * 400_000) + ".png"])
    message("x", decoder="d" * 100_000)
    message("x", threads=-(10**5000))
    # The result names a long path whole; an error does not.
    folder = tmp_path / ("a" * 150) / ("b" * 150)
    folder.mkdir(parents=True)
    path = folder / "clip.mp4"
    path.write_bytes(clip("no_b").read_bytes())
    assert read_video(path, Sampling(frames=1)).source == str(path)
    path.write_bytes(b"")
    text = message(path)
    assert text.endswith("/clip.mp4: is empty (0 bytes)")
    assert len(text) <= 200 + len(": is empty (0 bytes)")


# --- other things that people try ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "rtsp", "s3", "HTTP"])
def test_addresses_are_refused_with_advice(scheme: str) -> None:
    for source in (f"{scheme}://example.org/a.mp4", Path(f"{scheme}://example.org/a.mp4")):
        assert f"{scheme.lower()} addresses are not read, nothing is fetched; download it" in message(source)


def test_file_addresses(clip: Factory, tmp_path: Path) -> None:
    path = tmp_path / "a clip%41.mp4"
    path.write_bytes(clip("no_b").read_bytes())
    for source in (path.as_uri(), path.as_uri().replace("file://", "file://localhost"), Path(path.as_uri())):
        video = read_video(source, Sampling(frames=2))
        assert numbers_of(video.frames) == [0, 59]
        assert video.source == str(path)
    assert "on another machine" in message("file://server/share/a.mp4")
    assert message("file:///no/such.mp4") == "/no/such.mp4: no such file"


def test_file_addresses_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    assert "has no ? and no #" in message((tmp_path / "a.mp4").as_uri() + "?start=3")
    assert "has no ? and no #" in message((tmp_path / "a.mp4").as_uri() + "#t=3")
    assert "Invalid IPv6 URL" in message("file://[bad/x")


def test_paths_that_are_none() -> None:
    class Strange:
        def __init__(self, path: Any) -> None:
            self.path = path

        def __fspath__(self) -> str:
            return self.path() if callable(self.path) else self.path

    assert message("") == "'': no such file"
    assert message(Strange(5)).startswith("Strange object: gives no path: ")
    assert message(Strange(lambda: 1 // 0)) == "Strange object: gives no path: integer division or modulo by zero"
    assert message(Strange(b"no.mp4")) == "no.mp4: no such file"


def test_data_addresses_and_base64(clip: Factory) -> None:
    data = clip("no_b").read_bytes()
    text = base64.b64encode(data).decode()
    for source in (f"data:video/mp4;base64,{text}", f"DATA:;base64,{text.replace('+', '%2B')}"):
        assert numbers_of(read_video(source, Sampling(frames=2)).frames) == [0, 59]
    assert "looks like base64" in message(text)
    assert "base64" in message("data:video/mp4;base64,####")
    assert "without a comma" in message("data:video/mp4;base64" + "x" * 10_000)
    assert "Limits.max_bytes" in message(f"data:video/mp4;base64,{text}", limits=Limits(max_bytes=1000))
    assert message("data:,words") == "<bytes>: not a video file, or corrupt: it holds text"


def test_standard_input_is_told_how() -> None:
    assert message("-") == "-: no such file; to read standard input, pass sys.stdin.buffer"


def save_frames(folder: Path, names: list[str], suffix: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for name in names]
    for number, path in enumerate(paths):
        Image.fromarray(picture(number, 96, 64)).save(path)
    return paths


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "TIFF"])
def test_folders_and_lists_of_frame_files(tmp_path: Path, suffix: str) -> None:
    paths = save_frames(tmp_path / "frames", [f"frame{i}" for i in range(12)], suffix)
    (tmp_path / "frames" / "notes.txt").write_text("no frame")
    (tmp_path / "frames" / f".hidden.{suffix}").write_bytes(b"no frame")
    for source in (tmp_path / "frames", str(tmp_path / "frames"), paths, [str(path) for path in paths]):
        video = read_video(cast(Any, source), Sampling(frames=None))
        assert numbers_of(video.frames) == list(range(12))
        assert (video.timestamps, video.source_fps, video.decoder) == ((), None, "frames")
    assert read_video(tmp_path / "frames").source == str(tmp_path / "frames")
    # In the order given, and only what is picked is opened.
    assert numbers_of(read_video(paths[::-1], Sampling(frames=None)).frames) == list(range(12))[::-1]
    paths[5].write_bytes(b"broken")
    assert numbers_of(read_video(paths, Sampling(frames=2)).frames) == [0, 11]
    assert message(paths).startswith(f"{paths[5]}: not a picture; allowed: PNG, JPEG")


def test_frame_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert message(tmp_path) == f"{tmp_path}: is a directory, not a video file"
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert "not a picture" in message([tmp_path / "a.eps"])
    os.mkfifo(tmp_path / "a.png")
    assert "is not a regular file" in message(tmp_path)
    (tmp_path / "a.png").unlink()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "a.png")
    assert "more than 8 bits a channel" in message(tmp_path)
    good = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(good, "PNG")
    (tmp_path / "a.png").write_bytes(good.getvalue()[:2000])
    assert f"{tmp_path / 'a.png'}: corrupt: " in message(tmp_path)
    assert "has no clock" in message(tmp_path, sampling=Sampling(fps=1.0))


def test_pictures_that_are_read_late(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    late = Image.open(io.BytesIO(file.getvalue()[:2000]))
    assert message([late]).startswith("<images>: image 0: cannot be read: ")


def test_frame_files_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(picture(6, 96, 64))
    exif = image.getexif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert numbers_of(read_video(tmp_path).frames) == [6]


def animation(**arguments: Any) -> bytes:
    images = [Image.fromarray(picture(i, 96, 64)) for i in range(10)]
    file = io.BytesIO()
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], lossless=True, **arguments)
    return file.getvalue()


def test_animated_webp(tmp_path: Path) -> None:
    data = animation(duration=[100, 200, 300, 400, 100, 100, 100, 100, 100, 500])
    path = tmp_path / "anim.mp4"
    path.write_bytes(data)

    def check(video: Video) -> None:
        assert numbers_of(video.frames) == list(video.indices) == list(range(10))
        assert video.timestamps == pytest.approx([0, 0.1, 0.3, 0.6, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
        assert (video.decoder, video.source_frames, video.duration) == ("pillow", 10, pytest.approx(2.0))

    for source in (path, data, io.BytesIO(data)):
        check(read_video(cast(Any, source)))
    assert read_video(data, Sampling(fps=2.0)).indices == (0, 2, 4, 9)
    assert numbers_of(read_video(data, Sampling(frames=3)).frames) == [0, 4, 9]
    assert read_video(animation(duration=0)).timestamps == pytest.approx([i / 10 for i in range(10)])
    for size in range(30, len(data) - 2, 97):
        message(data[:size])
    assert "Limits.max_pixels" in message(data, limits=Limits(max_pixels=6000))


def test_animated_webp_from_elsewhere() -> None:
    video = read_video(shared("faults/anim.webp"))
    with Image.open(shared("faults/anim.webp")) as image:
        assert video.source_frames == image.n_frames  # type: ignore[attr-defined]
        assert video.frames.shape[1:3] == image.size[::-1]


def test_data_addresses_may_be_wrapped_and_must_be_text(tmp_path) -> None:
    raw = make_clip(tmp_path / "a.mp4", count=3).read_bytes()
    video = read_video("data:video/mp4;base64," + base64.encodebytes(raw).decode())
    assert len(video.frames) == 3
    with pytest.raises(VideoError) as refused:
        read_video("data:,\ud800b.mp4")
    assert str(refused.value).isprintable()
    with pytest.raises(VideoError) as refused:
        read_video("a\ud800\x1b[31mb.mp4")
    assert str(refused.value).isprintable()


def test_a_folder_named_like_a_picture_is_none(tmp_path) -> None:
    for number in (1, 2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "sub.png").mkdir()
    assert len(read_video(tmp_path).frames) == 2
