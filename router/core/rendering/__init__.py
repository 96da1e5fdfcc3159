"""Templates: rendering of a sink's options for one delivery; floor 2.

The router calls `compile_options` once for each sink and route, and `OptionsTemplate.render` for each delivery. The
time is an argument. The options already contain the text of files.
"""

from router.core.rendering.environment import TemplateEnvironment
from router.core.rendering.plan import (
    OptionsTemplate,
    Rendered,
    TemplateFault,
    TemplateFaults,
    compile_options,
)

__all__ = [
    "OptionsTemplate",
    "Rendered",
    "TemplateEnvironment",
    "TemplateFault",
    "TemplateFaults",
    "compile_options",
]
