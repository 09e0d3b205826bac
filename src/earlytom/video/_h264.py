"""What packets of H.264 tell of their pictures without being decoded."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["is_reference"]

# ITU-T H.264, 7.3.1: a NAL unit begins with a byte of forbidden_zero_bit, nal_ref_idc (2 bits), nal_unit_type (5 bits).
_START_CODE = b"\x00\x00\x01"
_REFERENCE = 0x60
_TYPE = 0x1F
# Slices and their partitions (Table 7-1).
_SLICES = range(1, 6)


def is_reference(packet: bytes, configuration: bytes) -> bool:
    """Tell whether other pictures may refer to the picture in a packet.

    Args:
        packet: an access unit.
        configuration: the stream's extradata; as in MP4 (avcC), it says how lengths of NAL units are written. Otherwise
            start codes separate them.

    Returns:
        False only where all slices say that none does (nal_ref_idc is 0); True as well where there are none, or where
        the lengths of NAL units do not add up.
    """
    # An avcC starts with its version, 1 (ISO/IEC 14496-15, 5.3.3.1).
    lengths = len(configuration) > 4 and configuration[0] == 1
    heads = _by_length(packet, (configuration[4] & 3) + 1) if lengths else _by_start_code(packet)
    slices = False
    for head in heads:
        if head is None or (head & _TYPE in _SLICES and head & _REFERENCE):
            return True
        slices = slices or head & _TYPE in _SLICES
    return not slices


def _by_length(packet: bytes, width: int) -> Iterator[int | None]:
    """First bytes of NAL units behind their lengths of ``width`` bytes; None where these lead beyond the end."""
    at = 0
    while at < len(packet):
        begin = at + width
        at = begin + int.from_bytes(packet[at:begin], "big")
        yield packet[begin] if begin < at <= len(packet) else None


def _by_start_code(packet: bytes) -> Iterator[int]:
    """First bytes of NAL units behind their start codes."""
    at = packet.find(_START_CODE)
    while 0 <= at < len(packet) - len(_START_CODE):
        yield packet[at + len(_START_CODE)]
        at = packet.find(_START_CODE, at + len(_START_CODE))
