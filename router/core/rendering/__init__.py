"""Templates: a sink's options made into what one delivery gets; floor 2.

`compile_options` is called once for each sink and route, `OptionsTemplate.render` for each delivery. Time comes in as an
argument, files as text that the options already hold.
"""

from router.core.rendering.plan import (
    OptionsTemplate,
    Rendered,
    TemplateFault,
    TemplateFaults,
    compile_options,
)
from router.core.rendering.templates import TemplateEnvironment

__all__ = [
    "OptionsTemplate",
    "Rendered",
    "TemplateEnvironment",
    "TemplateFault",
    "TemplateFaults",
    "compile_options",
]
