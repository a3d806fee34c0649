"""Where OpenAI's description says that ids stand in a body, and where it says that a schema stands.

Callers may send any field. One that merely has the name of a field with ids need not hold one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

#: For a field at the top of a body, the names at any depth of it that hold nothing but ids.
Places = Mapping[str, tuple[str, ...]]

_IN_TOOLS = ("file_id", "file_ids", "skill_id", "tunnel_id", "vector_store_ids")
_IN_ITEMS = ("input", "items", *_IN_TOOLS)
_RESOURCES = ("file_ids", "vector_store_ids")
_IN_INPUT: Places = {"input": _IN_ITEMS, "previous_response_id": ("previous_response_id",)}
_FINE_TUNING: Places = {"training_file": ("training_file",), "validation_file": ("validation_file",)}
_ASSISTANT: Places = {"tool_resources": _RESOURCES, "file_ids": ("file_ids",)}
_VIDEO: Places = {"video": ("video",)}

#: By operation, the places of ids in its body, those of the first version of the assistants' API included.
PLACES: Mapping[str, Places] = {
    "createResponse": {**_IN_INPUT, "prompt": ("file_id",), "tools": _IN_TOOLS},
    "Getinputtokencounts": {**_IN_INPUT, "tools": _IN_TOOLS},
    "Compactconversation": _IN_INPUT,
    "createConversation": {"items": _IN_ITEMS},
    "createConversationItems": {"items": _IN_ITEMS},
    "createChatCompletion": {"audio": ("audio",), "messages": ("audio", "file_id")},
    "createImageEdit": {"images": ("file_id",), "mask": ("file_id",)},
    "createVoice": {"consent": ("consent",)},
    "createVideo": {"input_reference": ("file_id",)},
    "CreateVideoCharacter": _VIDEO,
    "CreateVideoEdit": _VIDEO,
    "CreateVideoExtend": _VIDEO,
    "completeUpload": {"part_ids": ("part_ids",)},
    "createBatch": {"input_file_id": ("input_file_id",)},
    "createFineTuningJob": _FINE_TUNING,
    "createFineTune": _FINE_TUNING,
    "createEvalRun": {"data_source": _IN_TOOLS},
    "createVectorStore": {"file_ids": ("file_ids",)},
    "createVectorStoreFile": {"file_id": ("file_id",)},
    "createVectorStoreFileBatch": {"file_ids": ("file_ids",), "files": ("file_id",)},
    "CreateContainer": {"file_ids": ("file_ids",), "skills": ("skill_id",)},
    "CreateContainerFile": {"file_id": ("file_id",)},
    "createAssistant": _ASSISTANT,
    "modifyAssistant": _ASSISTANT,
    "createAssistantFile": {"file_id": ("file_id",)},
    "createThread": {"messages": ("file_id", "file_ids"), "tool_resources": _RESOURCES},
    "modifyThread": {"tool_resources": _RESOURCES},
    "createMessage": {"attachments": ("file_id",), "content": ("file_id",), "file_ids": ("file_ids",)},
    "createThreadAndRun": {
        "assistant_id": ("assistant_id",),
        "thread": ("file_id", *_RESOURCES),
        "tool_resources": _RESOURCES,
    },
    "createRun": {"additional_messages": ("file_id", "file_ids"), "assistant_id": ("assistant_id",)},
}
#: The same of the requests in a batch's file, whichever of the operations that it may hold they are for.
PLACES_IN_LINES: Places = {
    **PLACES["createResponse"],
    **PLACES["createChatCompletion"],
    **PLACES["createImageEdit"],
    **PLACES["createVideo"],
}

# What a schema stands under, by the field that holds the object with it.
_SCHEMAS = {"json_schema": "schema", "format": "schema", "data_source_config": "item_schema"}
# Within these there stand tools and formats as at the top of a body.
_BODIES = ("session", "response", "data_source", "sampling_params", "response_format", "text")
_LISTS_OF_BODIES = ("input", "items")
_FUNCTION_SCHEMAS = ("parameters", "output_schema", "input_schema")


def without_schemas(body: Any) -> Any:
    """The body but for its JSON schemas, which speak of fields and values that are none of the request's."""
    if not isinstance(body, Mapping):
        return body
    changed = dict(_without_schemas(body))
    return {**body, **changed} if changed else body


def _without_schemas(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a body that hold schemas, without them."""
    for name, schema in _SCHEMAS.items():
        held = body.get(name)
        if isinstance(held, Mapping) and isinstance(held.get(schema), Mapping):
            yield name, {**held, schema: None}
    for name in _BODIES:
        if isinstance(body.get(name), Mapping):
            yield name, without_schemas(body[name])
    for name in _LISTS_OF_BODIES:
        if isinstance(body.get(name), list):
            yield name, [without_schemas(one) for one in body[name]]
    for name in ("tools", "functions"):
        if isinstance(body.get(name), list):
            yield name, [_without_parameters(one, is_function=name == "functions") for one in body[name]]


def _without_parameters(tool: Any, *, is_function: bool) -> Any:
    """A tool without what its functions take and give; a namespace holds tools of its own."""
    if not isinstance(tool, Mapping):
        return tool
    if is_function or tool.get("type") == "function":
        tool = {name: held for name, held in tool.items() if name not in _FUNCTION_SCHEMAS}
        if isinstance(tool.get("function"), Mapping):
            tool["function"] = _without_parameters(tool["function"], is_function=True)
    return without_schemas(tool)
