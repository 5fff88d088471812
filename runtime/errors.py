"""Every error of keyeloop, by who has to act on it.

::

    KeyeloopError
    ├── ToolError              the model reads it and may try again
    ├── ToolCrashed            a tool raised anything else; the run ends, unless it was told to go on
    ├── UsageError             the developer or user mends the input (CLI: exit code 2)
    │   ├── InputError         a file, an address or a question that cannot be used
    │   ├── ConfigError        a setting that is unknown or out of range
    │   ├── ToolDefinitionError  a Python function that cannot become a tool
    │   └── ModelRequestForbidden  a test would have asked a real model
    └── OperatorError          the machine, a server or a sandbox failed; the run ends with this reason recorded
        ├── BackendError       the model could not be asked
        │   ├── CheckpointError  weights that do not fit the model
        │   └── ContextOverflow  a request that has more tokens than the model reads
        ├── SandboxUnavailable   no engine can isolate code here
        ├── SandboxError       a sandbox broke its protocol or could not be started
        └── JournalError       a run's record could not be written or read
"""


class KeyeloopError(Exception):
    """Base of every error raised on purpose; its text says what was wrong, where, and what to do."""


class ToolError(KeyeloopError):
    """Raised in a tool when the model could do better: its text becomes the tool's result."""


class ToolCrashed(KeyeloopError):
    """Raised when a tool raised what is no ToolError, which is its ``__cause__``; the record has the traceback."""


class UsageError(KeyeloopError):
    """Raised when what the developer or user passed in cannot work."""


class InputError(UsageError):
    """Raised when a file, an address or a question cannot be used."""


class ConfigError(UsageError):
    """Raised when a setting is unknown, of the wrong type or out of range."""


class ToolDefinitionError(UsageError):
    """Raised when a Python function cannot become a tool, naming the parameter and the cure."""


class ModelRequestForbidden(UsageError):
    """Raised in place of a request to a real model while these are forbidden, as in tests."""


class OperatorError(KeyeloopError):
    """Raised when something outside the caller's hands failed."""


class BackendError(OperatorError):
    """Raised when the model could not be asked or did not answer."""


class CheckpointError(BackendError):
    """Raised when a checkpoint's tensors do not fit the model: missing, extra or wrongly shaped."""


class ContextOverflow(BackendError):
    """Raised when a model's server refuses a request because it is longer than the model's context."""


class SandboxUnavailable(OperatorError):
    """Raised when no engine can isolate code on this machine; says why and what to install."""


class SandboxError(OperatorError):
    """Raised when a sandbox could not be started or broke its protocol."""


class JournalError(OperatorError):
    """Raised when a run's record cannot be written or read."""
