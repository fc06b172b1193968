"""What may stand in a span or a metric: numbers, enums and Labels."""

from __future__ import annotations

import enum

from authpipe_sensitive import Label, RedactedError

Attribute = Label | int | float | bool | enum.Enum


def checked(attributes: dict[str, Attribute]) -> dict[str, str | int | float | bool]:
    """Gives attributes as OpenTelemetry takes them.

    Raises:
        RedactedError: A value is of a type that could hold a secret.
    """
    shown: dict[str, str | int | float | bool] = {}
    for name, value in attributes.items():
        match value:
            case enum.Enum():
                shown[name] = value.name
            case bool() | int() | float() | Label():
                shown[name] = value
            case _:
                raise RedactedError("A span or metric takes numbers, enums and Labels.")
    return shown
