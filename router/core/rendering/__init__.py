"""Templates: rendering of a sink's options for one delivery; floor 2.

`compile_options` is called once for each sink and route, `OptionsTemplate.render` for each delivery. The time is an
argument, and the options already contain the text of files.
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
