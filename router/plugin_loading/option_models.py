"""The check of the models of options that plugins register; floor 3."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.errors import PydanticUndefinedAnnotation

SHADOWED = r'Field name ".*" in ".*" shadows an attribute in parent'
"""The beginning of pydantic's warning about a field with the name of an attribute, as a regular expression.

The warning appears when the class is made. For the options of a type, `hidden_attribute` gives a better message. In any
other model, such a field does no harm.
"""


def hidden_attribute(options: type[BaseModel], base: type[BaseModel]) -> str | None:
    """Return the fault of a model in which an option has the name of an attribute of the base class, or None.

    Code that uses the attribute of the base class would get the option's value instead.
    """
    for name in options.model_fields:
        if hasattr(base, name):
            return (
                f"the option `{name}` has the same name as an attribute of {base.__name__}: rename the option, or write "
                f'`{name}_: … = Field(alias="{name}")`'
            )
    return None


def undefined_type(options: type[BaseModel]) -> str | None:
    """Return a message about an annotation that names an unknown type, with the correction; None if there is none.

    Pydantic reports this fault only when the model is used. The report would not name the plugin that has the fault.
    """
    try:
        options.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        return (
            f"an option of class {options.__name__} has the type `{error.name}`, which is not defined: define or import this type in "
            "the module of the class, outside of `if TYPE_CHECKING`"
        )
    return None
