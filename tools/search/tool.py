"""``web_search``: the model's way into the run's folder of documents."""

from __future__ import annotations

from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool
from keyeloop.tools.search.index import DocumentIndex
from keyeloop.tools.search.wording import hits_text


@tool(timeout_s=60, in_order=False)
def web_search(query: str, context: ToolContext) -> str:
    """Search the documents."""
    if context.documents is None:
        raise ToolError("there are no documents to search: this run was given no folder of them")
    try:
        hits = DocumentIndex(context.documents).search(query)
    except InputError as error:
        raise ToolError(str(error)) from None
    return hits_text(query, hits)
