"""The AsyncAPI 3.0 document of the bus, from the message types: `python -m broadcaster.bus.asyncapi`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from broadcaster.bus.leases import RECORDS
from broadcaster.bus.messages import (
    EVENT_DATA,
    VERSION,
    Call,
    Event,
    EventType,
    LeaveParams,
    LeaveResult,
    OfferParams,
    OfferResult,
    PatchParams,
    PatchResult,
    Reply,
    SessionRecord,
    ViewersParams,
    ViewersResult,
    key,
)

_SCHEMAS = "#/components/schemas/"

_METHODS: dict[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    "offer": (OfferParams, OfferResult),
    "patch": (PatchParams, PatchResult),
    "leave": (LeaveParams, LeaveResult),
    "viewers": (ViewersParams, ViewersResult),
}


def document() -> dict[str, Any]:
    """The document as JSON values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Beamcast",
            "version": f"{VERSION}.0.0",
            "description": "What crosses Redis: msgpack maps with string keys. "
            "Unknown keys are skipped, so that a message can grow; another `v` is another protocol.",
        },
        "defaultContentType": "application/msgpack",
        "servers": {"redis": {"host": "127.0.0.1:6379", "protocol": "redis"}},
        "channels": {
            "events": _channel("events", "stream", _STREAM, [name for name in _types() if name != "stats"]),
            "stats": _channel("stats", "stream", _STREAM, ["stats"]),
            "rpc": _channel("rpc", "id", "The id of the process that is asked.", ["call"]),
            "reply": _channel("reply", "caller", "The caller's own; each call names it as `reply_to`.", ["reply"]),
        },
        "operations": {
            "tell": _operation("send", "events", "Say what happened. Also kept in the Stream of the channel's name."),
            "measure": _operation("send", "stats", "Describe each viewer once a second. Also kept in a Stream."),
            "answer": {
                **_operation("receive", "rpc", "Answer a call before its deadline."),
                "reply": {"address": {"location": "$message.payload#/reply_to"}, "channel": _ref("#/channels/reply")},
            },
        },
        "components": {
            "messages": {
                **{name: _event_message(name) for name in _types()},
                "call": _message("call", Call.__name__),
                "reply": _message("reply", Reply.__name__),
            },
            "schemas": _schemas(),
        },
        "x-keys": {
            **{key(kind, "{id}"): _ref(_SCHEMAS + record.__name__) for kind, record in RECORDS.items()},
            key("session", "{secret}"): _ref(_SCHEMAS + SessionRecord.__name__),
        },
        "x-methods": {
            name: {"params": _ref(_SCHEMAS + params.__name__), "result": _ref(_SCHEMAS + result.__name__)}
            for name, (params, result) in _METHODS.items()
        },
    }


_STREAM = "The name of the stream; `_cluster` for events that concern none."


def _types() -> tuple[EventType, ...]:
    types: tuple[EventType, ...] = get_args(EventType)
    return types


def _ref(target: str) -> dict[str, str]:
    return {"$ref": target}


def _channel(name: str, parameter: str, meaning: str, messages: list[Any]) -> dict[str, Any]:
    return {
        "address": key(name, f"{{{parameter}}}"),
        "parameters": {parameter: {"description": meaning}},
        "messages": {message: _ref(f"#/components/messages/{message}") for message in messages},
    }


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": _ref(f"#/channels/{channel}"), "summary": summary}


def _message(name: str, schema: str) -> dict[str, Any]:
    return {"name": name, "contentType": "application/msgpack", "payload": _ref(_SCHEMAS + schema)}


def _event_message(name: EventType) -> dict[str, Any]:
    data = EVENT_DATA[name].__name__
    return {
        "name": name,
        "contentType": "application/msgpack",
        "payload": {
            "allOf": [
                _ref(_SCHEMAS + Event.__name__),
                {"properties": {"type": {"const": name}, "data": _ref(_SCHEMAS + data)}},
            ]
        },
    }


def _schemas() -> dict[str, Any]:
    types = [
        Event,
        *EVENT_DATA.values(),
        Call,
        Reply,
        *(part for pair in _METHODS.values() for part in pair),
        *RECORDS.values(),
        SessionRecord,
    ]
    _, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    return dict(sorted(components.items()))


def text() -> str:
    """The document as it stands in docs/asyncapi.json."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    print(text(), end="")
