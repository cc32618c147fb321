"""A minimal WebM file: still pictures, each a VP8 key frame, shown one after the other.

A lossy WebP file is one VP8 key frame in a RIFF envelope, so whoever writes WebP (Pillow does) makes films with this.
Every frame is a cluster of its own and has a cue, so that players can jump to each. Used by
envs/gauntlet/puzzles/video.py. Imports nothing of ours.

Format: https://www.matroska.org/technical/elements.html (EBML: an id, a length, then the content)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

WRITER = "dpo-driver"
MS_NS = 1_000_000  # a tick is a millisecond


def key_frame(webp: bytes) -> bytes:
    """The VP8 frame in a lossy WebP file.

    Raises:
        ValueError: it is no such file.
    """
    if webp[:4] != b"RIFF" or webp[8:12] != b"WEBP":
        raise ValueError("this is no WebP file")
    place = 12
    while place + 8 <= len(webp):
        name, length = webp[place : place + 4], struct.unpack("<I", webp[place + 4 : place + 8])[0]
        if name == b"VP8 ":
            return webp[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    raise ValueError("this WebP file is not lossy: it has no VP8 frame")


def webm(frames: Sequence[bytes], width: int, height: int, frame_ms: int) -> bytes:
    """A film of VP8 key frames, each shown for ``frame_ms`` milliseconds."""
    info = _element(
        0x1549A966,
        _number(0x2AD7B1, MS_NS),
        _element(0x4489, struct.pack(">d", float(frame_ms * len(frames)))),
        _text(0x4D80, WRITER),
        _text(0x5741, WRITER),
    )
    size = _element(0xE0, _number(0xB0, width), _number(0xBA, height))
    track = _element(
        0xAE,
        _number(0xD7, 1),
        _number(0x73C5, 1),
        _number(0x9C, 0),  # no lacing
        _number(0x83, 1),  # a picture track
        _text(0x86, "V_VP8"),
        _number(0x23E383, frame_ms * MS_NS),
        size,
    )
    tracks = _element(0x1654AE6B, track)
    clusters = [_cluster(frame, index * frame_ms) for index, frame in enumerate(frames)]
    # Places count from the segment's first byte. All are written in eight bytes, so the lengths are known before.
    seek_length = len(_seek([(0x1549A966, 0), (0x1654AE6B, 0), (0x1C53BB6B, 0)]))
    cues_at = seek_length + len(info) + len(tracks)
    seek = _seek([(0x1549A966, seek_length), (0x1654AE6B, seek_length + len(info)), (0x1C53BB6B, cues_at)])
    first = cues_at + len(_cues([(0, 0)] * len(frames)))
    cues = _cues(list(_places(clusters, first, frame_ms)))
    head = _element(
        0x1A45DFA3,
        _number(0x4286, 1),
        _number(0x42F7, 1),
        _number(0x42F2, 4),
        _number(0x42F3, 8),
        _text(0x4282, "webm"),
        _number(0x4287, 2),
        _number(0x4285, 2),
    )
    return head + _element(0x18538067, seek, info, tracks, cues, *clusters)


def _places(clusters: Sequence[bytes], first: int, frame_ms: int) -> Iterator[tuple[int, int]]:
    place = first
    for index, cluster in enumerate(clusters):
        yield index * frame_ms, place
        place += len(cluster)


def _cluster(frame: bytes, at_ms: int) -> bytes:
    block = b"\x81" + struct.pack(">hB", 0, 0x80) + frame  # track 1, at the cluster's time, a key frame
    return _element(0x1F43B675, _number(0xE7, at_ms), _element(0xA3, block))


def _cues(cues: Sequence[tuple[int, int]]) -> bytes:
    points = [
        _element(0xBB, _wide(0xB3, at_ms), _element(0xB7, _number(0xF7, 1), _wide(0xF1, place)))
        for at_ms, place in cues
    ]
    return _element(0x1C53BB6B, *points)


def _seek(entries: Sequence[tuple[int, int]]) -> bytes:
    return _element(
        0x114D9B74,
        *(_element(0x4DBB, _element(0x53AB, _bytes(name)), _wide(0x53AC, place)) for name, place in entries),
    )


def _bytes(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def _element(name: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return _bytes(name) + b"\x01" + len(body).to_bytes(7, "big") + body  # a length of eight bytes fits everything


def _number(name: int, value: int) -> bytes:
    return _element(name, _bytes(value))


def _wide(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def _text(name: int, value: str) -> bytes:
    return _element(name, value.encode())
