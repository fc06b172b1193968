"""The redacting serialiser for protobuf messages: the only way a message becomes text.

Python's protobuf does not honour `debug_redact`: `str()`, `repr()`, text_format and json_format print the field. So
this walks descriptors (the plan is cached per message type), and shows only what is known to be harmless: numbers,
enums, timestamps, and strings that are Labels. `bytes` show their length. Unknown fields are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from authpipe_sensitive.labels import Label, RedactedError

REDACTED = "[redacted]"
# The packages that are ours; what others make has no secrets, and their text is used.
_OURS = "authpipe."


def redacted(message: Message) -> dict[str, Any]:
    """Gives the set fields of a message as plain values, secrets as `[redacted]`.

    Args:
        message: Any generated message.
    """
    shown: dict[str, Any] = {}
    for name, repeated, show in _plan(message.DESCRIPTOR):
        value = getattr(message, name)
        if repeated:
            if len(value):
                shown[name] = [show(item) for item in value]
        elif value or isinstance(value, Message):
            if isinstance(value, Message) and not message.HasField(name):
                continue
            shown[name] = show(value)
    return shown


@cache
def _plan(descriptor: Descriptor) -> tuple[tuple[str, bool, Callable[[Any], Any]], ...]:
    return tuple((field.name, field.is_repeated, _shower(field)) for field in descriptor.fields)


def _shower(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.GetOptions().debug_redact:
        return lambda _: REDACTED
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return lambda value: value.ToJsonString()
        return redacted
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda value: names.get(value, int(value))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: f"<{len(value)} bytes>"
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text
    return lambda value: value


def _text(value: str) -> str:
    try:
        return Label(value)
    except RedactedError:
        return f"<{len(value)} characters>"


def guard_generated_code(messages: Iterable[type[Message]]) -> None:
    """Makes `str`, `repr` and `format` of these generated classes redact: a second wall behind the type checks."""
    for message in messages:
        for method in ("__str__", "__repr__"):
            setattr(message, method, _describe)
        setattr(message, "__format__", _describe_formatted)  # noqa: B010  # mypy would not let a method be assigned


def guard_services(services: Iterable[ServiceDescriptor]) -> None:
    """Makes what these services take and give redact itself, with all that is in it (`guard_generated_code`)."""
    found: dict[str, Descriptor] = {}
    waiting = [each for service in services for rpc in service.methods for each in (rpc.input_type, rpc.output_type)]
    while waiting:
        message = waiting.pop()
        if message.full_name in found or not message.full_name.startswith(_OURS):
            continue
        found[message.full_name] = message
        waiting += [field.message_type for field in message.fields if field.message_type is not None]
    guard_generated_code(map(GetMessageClass, found.values()))


def _describe(message: Message) -> str:
    return f"{message.DESCRIPTOR.full_name}({redacted(message)!r})"


def _describe_formatted(message: Message, _: str) -> str:
    return _describe(message)
