"""Messages and parts as they are written down: tagged pydantic forms that read back to the same frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

from keyeloop.runtime.content import Image, MediaRef, Message, Part, Role, Text, ToolCall, Video
from keyeloop.runtime.evidence import View


class Wire(BaseModel):
    """Base of everything that is written down: frozen; fields of a newer version are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TextWire(Wire):
    """A :class:`Text`."""

    type: Literal["text"] = "text"
    text: str


class ImageWire(Wire):
    """An :class:`Image`: the address of its bytes, and of what it shows."""

    type: Literal["image"] = "image"
    media: MediaRef
    view: View | None = None


class VideoWire(Wire):
    """A :class:`Video`."""

    type: Literal["video"] = "video"
    frames: tuple[ImageWire, ...]


PartWire = Annotated[TextWire | ImageWire | VideoWire, Field(discriminator="type")]


class MessageWire(Wire):
    """A :class:`Message`."""

    role: Role
    parts: tuple[PartWire, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    raw: str | None = None


def to_wire(message: Message) -> MessageWire:
    """A message in the form that is written down."""
    return MessageWire(
        role=message.role,
        parts=parts_to_wire(message.parts),
        reasoning=message.reasoning,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
        raw=message.raw,
    )


def from_wire(wire: MessageWire) -> Message:
    """The message that was written down."""
    return Message(
        role=wire.role,
        parts=parts_from_wire(wire.parts),
        reasoning=wire.reasoning,
        tool_calls=wire.tool_calls,
        tool_call_id=wire.tool_call_id,
        raw=wire.raw,
    )


def parts_to_wire(parts: Iterable[Part]) -> tuple[PartWire, ...]:
    """Parts in the form that is written down."""
    return tuple(_part_to_wire(part) for part in parts)


def parts_from_wire(parts: Iterable[PartWire]) -> tuple[Part, ...]:
    """The parts that were written down."""
    return tuple(_part_from_wire(part) for part in parts)


def _part_to_wire(part: Part) -> PartWire:
    match part:
        case Text(text):
            return TextWire(text=text)
        case Image():
            return _image_to_wire(part)
        case Video(frames):
            return VideoWire(frames=tuple(_image_to_wire(frame) for frame in frames))
    assert_never(part)


def _part_from_wire(part: PartWire) -> Part:
    match part:
        case TextWire():
            return Text(part.text)
        case ImageWire():
            return Image(part.media, part.view)
        case VideoWire():
            return Video(tuple(Image(frame.media, frame.view) for frame in part.frames))
    assert_never(part)


def _image_to_wire(image: Image) -> ImageWire:
    return ImageWire(media=image.media, view=image.view)
