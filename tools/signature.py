"""A typed function's parameters as a JSON schema and as a checker that turns arguments into what the function takes."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.docstring import read_docstring
from keyeloop.tools.hints import resolve_hints
from keyeloop.tools.schema import compact, strict

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY)


class Signature:
    """How a function is called: by a model with JSON arguments, and with the run's context where it asks for one."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._signature = _open_parameters(function)
        hints = resolve_hints(function, name)
        described = read_docstring(function.__doc__).parameters
        self._context_name: str | None = None
        self._fields: dict[str, str] = {}
        fields: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            hint = _hint(parameter, hints, name)
            if hint is ToolContext:
                self._context_name = parameter.name
                continue
            field = f"p{len(fields)}"  # any name is a good parameter, not every name a good pydantic field
            self._fields[field] = parameter.name
            text = described.get(parameter.name, "")
            told = Field(alias=parameter.name)
            if text and not _describes_itself(hint):
                told = Field(alias=parameter.name, description=text)
            required = parameter.default is inspect.Parameter.empty
            default = ... if required else parameter.default
            fields[field] = (Annotated[hint, told], default)
        try:
            self._model: type[BaseModel] = create_model(
                "Arguments", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
            )
            whole = self._model.model_json_schema(schema_generator=_QuietSchema)
        except (PydanticUserError, TypeError) as error:
            raise ToolDefinitionError(
                f"tool {name!r} has a parameter that JSON cannot carry: {str(error).splitlines()[0]} Use str, int, "
                "float, bool, list, dict, an Enum, a Literal, a dataclass or a pydantic model"
            ) from None
        self.schema: dict[str, Any] = compact(whole)
        """What a model is told."""
        self.strict_schema: dict[str, Any] = strict(whole)
        """What its calls are held to: keys that are not declared are refused."""

    @property
    def takes_context(self) -> bool:
        """Whether the function asks for the run's context."""
        return self._context_name is not None

    def bind(self, arguments: Mapping[str, Any], context: ToolContext) -> inspect.BoundArguments:
        """Checked arguments, ready for the call; ToolError says which one does not fit and why."""
        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(self._explain(error)) from None
        except RecursionError:
            raise ToolError(f"the arguments of {self._name} are nested too deeply") from None
        values = {name: getattr(checked, field) for field, name in self._fields.items()}
        if self._context_name is not None:
            values[self._context_name] = context
        bound = inspect.BoundArguments(self._signature, typing.cast(Any, {}))
        for parameter in self._signature.parameters:  # in the function's own order
            bound.arguments[parameter] = values[parameter]
        return bound

    def _explain(self, error: ValidationError) -> str:
        problems = []
        for problem in error.errors(include_url=False):
            where = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                known = ", ".join(self._fields.values()) or "none"
                problems.append(f"{self._name} has no argument {where!r}; its arguments: {known}")
            elif problem["type"] == "missing":
                problems.append(f"argument {where!r} of {self._name} is missing")
            else:
                problems.append(f"argument {where!r} of {self._name}: {problem['msg']}, got {problem['input']!r:.200}")
        return "; ".join(problems)


def _open_parameters(function: Callable[..., Any]) -> inspect.Signature:
    """What is left to be given: what a partial holds already is its own business, a key for instance."""
    signature = inspect.signature(function)
    held = function.keywords if isinstance(function, functools.partial) else {}
    return signature.replace(parameters=[one for name, one in signature.parameters.items() if name not in held])


class _QuietSchema(GenerateJsonSchema):
    """A default that is no JSON is left out without a warning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}


def _hint(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str) -> Any:
    if parameter.kind not in _BY_NAME:
        raise ToolDefinitionError(
            f"tool {name!r} takes {str(parameter).split(':')[0]}: a model must know every argument; name each of them"
        )
    if parameter.name not in hints:
        raise ToolDefinitionError(
            f"parameter {parameter.name!r} of tool {name!r} has no type: write {parameter.name}: str, for example"
        )
    if isinstance(parameter.default, FieldInfo):
        raise ToolDefinitionError(
            f"parameter {parameter.name!r} of tool {name!r} has a Field for default: write Annotated[type, Field(...)]"
        )
    return hints[parameter.name]


def _describes_itself(hint: Any) -> bool:
    metadata = getattr(hint, "__metadata__", ())
    return any(isinstance(item, FieldInfo) and item.description is not None for item in metadata)
