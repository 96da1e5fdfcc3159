"""The check of the models of options that plugins register; floor 3."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.errors import PydanticUndefinedAnnotation


def undefined_type(options: type[BaseModel]) -> str | None:
    """Return the fault of a model whose annotations name an unknown type, with its correction; None if it is complete.

    Pydantic only reports this fault when the model is used, which is too late to say which plugin has it.
    """
    try:
        options.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        return (
            f"an option of class {options.__name__} has the type `{error.name}`, which is unknown: define or import it in "
            "the module of the class, and not only for type checkers"
        )
    return None
