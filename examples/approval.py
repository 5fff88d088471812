"""Some calls are allowed, some denied, some asked about: `python approval.py`, and answer y or n.

On the command line the same is `keyeloop run ... --approve 'file_number(shelf=top)=allow' --approve '*=ask'`.
"""

from keyeloop import Agent, Toolset, tool
from keyeloop.model_backend.scripted import ScriptedBackend, calls
from keyeloop.runtime.content import ToolCall

RULES = {
    "file_number(shelf=top)": "allow",
    "file_number(number=*)": "ask",
    "empty_*": "deny",
}


@tool
def file_number(number: int, shelf: str) -> str:
    """File a number on a shelf."""
    return f"filed {number} on {shelf}"


@tool
def empty_shelf(shelf: str) -> str:
    """Throw away what is on a shelf."""
    return f"{shelf} is empty"


def ask(call: ToolCall) -> bool | str:
    """Whether the call may be made; a text says no, and the model reads why."""
    typed = input(f"{call.name} {dict(call.arguments)}? [y/n/why not] ").strip()
    return typed == "y" or ("" if typed == "n" else typed)


if __name__ == "__main__":
    wanted = calls(
        ("file_number", {"number": 821, "shelf": "top"}),
        ("file_number", {"number": 383, "shelf": "low"}),
        ("empty_shelf", {"shelf": "low"}),
    )
    tools = Toolset([file_number, empty_shelf]).approved(RULES, ask).limited({"file_number": 4})
    answer = Agent(ScriptedBackend([wanted, "Done what I may."]), tools).run_sync("Tidy up.")
    print(answer, answer.run)
