"""The check of the models of options that plugins register; floor 3."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.errors import PydanticUndefinedAnnotation

SHADOWED = r'Field name ".*" in ".*" shadows an attribute in parent'
"""The beginning of pydantic's warning about a field with the name of an attribute, as a regular expression.

The warning comes when the class is made. For the options of a type, `hidden_attribute` gives a better message. In any other model,
such a field does no harm.
"""


def hidden_attribute(options: type[BaseModel], base: type[BaseModel]) -> str | None:
    """Return the fault of a model with an option that has the name of an attribute of its base class; None if it has none.

    Code that uses the attribute of the base class would find the option's value in its place.
    """
    for name in options.model_fields:
        if hasattr(base, name):
            return (
                f"the option `{name}` has the same name as an attribute of {base.__name__}: rename the option, or write "
                f'`{name}_: … = Field(alias="{name}")`'
            )
    return None


def undefined_type(options: type[BaseModel]) -> str | None:
    """Return the fault of a model whose annotations name an unknown type, with its correction; None if it is complete.

    Pydantic only reports this fault when the model is used, which is too late to say which plugin has it.
    """
    try:
        options.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        return (
            f"an option of class {options.__name__} has the type `{error.name}`, which is not defined: define or import this type in "
            "the module of the class, outside of `if TYPE_CHECKING`"
        )
    return None
